"use strict";
// The page: two losses, one plane, and the pairs that are let go in it.

const MOST_FLOWS = 4;

const page = {
  range: [0, 1],
  starts: [[0.2, 0.2], [0.8, 0.8]], // the points A and B of the paper's introduction
  first: 0, // how many flows were dropped, so that letters stay
  pointed: null,
  sides: [],

  letter(i) { return String.fromCharCode(65 + ((this.first + i) % 26)); },

  start(point) {
    this.starts.push(point);
    while (this.starts.length > MOST_FLOWS) { this.starts.shift(); this.first++; }
    for (const side of this.sides) side.drawFlows(true);
  },

  point(at) {
    this.pointed = at;
    for (const side of this.sides) side.tell(at);
  },
};

page.sides.push(new Side("a", "CircleLoss", page), new Side("b", "CosFaceLoss", page));

for (const input of document.querySelectorAll("#range input")) {
  input.addEventListener("change", () => {
    page.range = [Number(input.value), 1];
    for (const side of page.sides) side.draw();
  });
}
document.getElementById("go").addEventListener("click", () => {
  const inputs = ["start-n", "start-p"].map((id) => document.getElementById(id));
  // The browser says at the field what is wrong with a number.
  if (inputs.every((input) => input.reportValidity())) page.start(inputs.map((input) => input.valueAsNumber));
});
document.getElementById("clear").addEventListener("click", () => {
  page.starts = [];
  page.first = 0;
  for (const side of page.sides) side.drawFlows();
});

// The window changes its width, and the scroll bar takes some of it once the figures are there. In the next
// frame: figures that change the height while it is being observed are an error.
let width = null;
new ResizeObserver(([{contentRect}]) => requestAnimationFrame(() => {
  if (contentRect.width === width) return;
  width = contentRect.width;
  for (const side of page.sides) side.draw();
  document.body.dataset.drawn = String(page.sides.length);
})).observe(document.querySelector(".both"));

// The numbers behind the figures, for whoever wants to check or use them.
window.circlet = {
  evaluate: (name, values, s_n, s_p) => makeLoss(name, values).evaluate(s_n, s_p),
  target: (name, values, range) => {
    const loss = makeLoss(name, values);
    return targetPoint(loss, decisionBoundary(loss, range), range);
  },
  flows: () => page.sides.map((side) => side.flows),
};

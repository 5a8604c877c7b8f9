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
  const point = ["start-n", "start-p"].map((id) => document.getElementById(id).valueAsNumber);
  if (point.every((s) => s >= -1 && s <= 1)) page.start(point);
});
document.getElementById("clear").addEventListener("click", () => {
  page.starts = [];
  page.first = 0;
  for (const side of page.sides) side.drawFlows();
});

let width = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return;
  width = window.innerWidth;
  for (const side of page.sides) side.draw();
});

// The values of the page, for whoever wants to check or use them.
window.circlet = {
  names: ENTRIES.map((entry) => entry.name),
  evaluate: (name, values, s_n, s_p) => makeLoss(name, values).evaluate(s_n, s_p),
  boundary: (name, values, range) => decisionBoundary(makeLoss(name, values), range),
  target: (name, values, range) => {
    const loss = makeLoss(name, values);
    return targetPoint(loss, decisionBoundary(loss, range), range);
  },
  flows: () => page.sides.map((side) => side.flows),
};
document.body.dataset.drawn = String(page.sides.length);

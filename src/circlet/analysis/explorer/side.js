"use strict";
// One of the two losses of the page: its controls, its figures, and what it says of them.

const CELLS = 120, ARROWS = 13;
const diverging = ramp(HEAT.gradient), sequential = ramp(HEAT.loss);
// A target between two hundredths would not add up: three digits where the third counts.
const targetText = ([s_n, s_p]) => `(${[s_n, s_p].map((s) => s.toFixed(3).replace(/0$/, "").replace("-", "−")).join(", ")})`;
const pointText = ([s_n, s_p]) => `(${fixed(s_n)}, ${fixed(s_p)})`;

class Side {
  constructor(id, name, page) {
    this.page = page;
    this.section = document.getElementById(id);
    this.plots = Object.fromEntries(["plane", "positive", "negative", "surface", "course"]
      .map((figure) => [figure, new Plot(document.getElementById(`${id}-${figure}`))]));
    const select = this.find("select");
    for (const group of new Set(ENTRIES.map((entry) => entry.group))) {
      const options = ENTRIES.filter((entry) => entry.group === group).map((entry) => new Option(entry.title, entry.name));
      const element = Object.assign(document.createElement("optgroup"), {label: group});
      element.append(...options);
      select.append(element);
    }
    select.value = name;
    select.addEventListener("change", () => this.choose(select.value));
    this.find(".reset").addEventListener("click", () => this.choose(select.value));
    const svg = this.plots.plane.svg;
    svg.addEventListener("click", (event) => page.start(this.pointOf(this.plots.plane, event)));
    for (const figure of ["plane", "positive", "negative", "surface"]) {
      const plot = this.plots[figure];
      plot.svg.addEventListener("pointermove", (event) => page.point(this.pointOf(plot, event)));
      plot.svg.addEventListener("pointerleave", () => page.point(null));
    }
    this.choose(name);
  }

  find(selector) { return this.section.querySelector(selector); }

  // The point of the plane under the pointer, cut off at its edges.
  pointOf(plot, event) {
    const box = plot.svg.getBoundingClientRect(), [low, high] = this.page.range;
    return plot.fromPixels(event.clientX - box.left, event.clientY - box.top)
      .map((s) => Math.min(high, Math.max(low, s)));
  }

  choose(name) {
    this.entry = ENTRIES.find((entry) => entry.name === name);
    this.values = {...this.entry.defaults};
    const place = this.find(".sliders");
    place.replaceChildren(...this.entry.sliders.map((slider) => this.slider(slider)),
      ...this.entry.switches.map((argument) => this.switch(argument)));
    this.draw();
  }

  slider(slider) {
    const {name, symbol, low, high, logarithmic} = slider;
    const to = logarithmic ? Math.log2 : (v) => v;
    const label = Object.assign(document.createElement("label"), {className: "slider", htmlFor: `${this.section.id}-${name}`});
    const [letter, index] = symbol.split("_");
    const written = name === symbol ? "" : `<span class="symbol">${letter}${index ? `<sub>${index}</sub>` : ""}</span>`;
    label.innerHTML = `<span>${name} ${written}</span><output></output><input type="range" name="${name}" id="${label.htmlFor}">`;
    const [output, input] = [label.querySelector("output"), label.querySelector("input")];
    Object.assign(input, {min: to(low), max: to(high), step: logarithmic ? 0.05 : high - low > 4 ? 0.1 : 0.005});
    const show = () => {
      const value = this.value(slider);
      label.classList.toggle("follows", this.values[name] === null);
      input.value = to(value);
      output.textContent = shown(value);
      input.setAttribute("aria-valuetext", shown(value));
    };
    input.addEventListener("input", () => {
      const value = Number(input.value);
      this.values[name] = logarithmic ? Number((2 ** value).toPrecision(3)) : Number(value.toFixed(4));
      this.showSliders();
      this.draw();
    });
    label.show = show;
    show();
    return label;
  }

  switch(argument) {
    const label = Object.assign(document.createElement("label"), {className: "switch"});
    label.innerHTML = `<input type="checkbox" name="${argument}"> <span>${argument} ` +
      `<span class="symbol">α is a constant in the gradient, as in the paper</span></span>`;
    const input = label.querySelector("input");
    input.checked = this.values[argument];
    input.addEventListener("change", () => { this.values[argument] = input.checked; this.draw(); });
    return label;
  }

  showSliders() { for (const label of this.section.querySelectorAll(".slider")) label.show(); }

  // The value of a slider: what it was moved to, or what the margin makes of it.
  value({name, follows}) {
    return this.values[name] ?? follows[0] + follows[1] * this.values.margin;
  }

  call() {
    const given = [...this.entry.sliders.map(({name}) => name)].filter((name) => this.values[name] !== null)
      .map((name) => `${name}=${this.values[name]}`);
    const fixedArguments = Object.entries(this.entry.fixed).map(([name, value]) => `${name}="${value}"`);
    const switched = this.entry.switches.filter((name) => this.values[name] !== this.entry.defaults[name])
      .map((name) => `${name}=${this.values[name] ? "True" : "False"}`);
    return `losses.${this.entry.loss}(${[...fixedArguments, ...given, ...switched].join(", ")})`;
  }

  draw() {
    for (const plot of Object.values(this.plots)) plot.measure();
    const {range} = this.page, [low, high] = range, half = (high - low) / CELLS / 2;
    const values = Object.fromEntries(Object.entries(this.values).filter(([, value]) => value !== null));
    const loss = (this.loss = makeLoss(this.entry.name, values));
    this.find(".call").textContent = this.call();
    this.boundary = decisionBoundary(loss, range);
    this.target = targetPoint(loss, this.boundary, range);
    this.places = spread(low + half, high - half, CELLS);
    this.cells = this.places.map((s_p) => this.places.map((s_n) => loss.evaluate(s_n, s_p)));
    const flat = this.cells.flat();
    this.largest = Math.max(...flat.map(({negative, positive}) => Math.hypot(negative, positive)), Number.MIN_VALUE);
    this.drawGradient("positive", "p", flat);
    this.drawGradient("negative", "n", flat);
    this.drawSurface(flat);
    this.drawFlows();
  }

  drawGradient(which, letter, flat) {
    const plot = this.plots[which];
    const largest = Math.max(...flat.map((cell) => Math.max(Math.abs(cell.negative), Math.abs(cell.positive)))) || 1;
    plot.plane(this.page.range);
    plot.colours(this.cells.map((row) => row.map((cell) => cell[which])), (value) => diverging(0.5 + value / largest / 2));
    plot.curves(this.boundary, "white");
    const inside = flat.map((cell) => cell[which]);
    plot.end(`Heat map of the gradient of ${this.entry.title} in s_${letter} over the plane: from ` +
      `${shown(Math.min(...inside))} to ${shown(Math.max(...inside))}, the decision boundary dashed in white`);
    this.scale(plot, HEAT.gradient, [-largest, 0, largest]);
  }

  drawSurface(flat) {
    const plot = this.plots.surface, values = this.cells.map((row) => row.map((cell) => cell.loss));
    const all = flat.map((cell) => cell.loss), [low, high] = [Math.min(...all), Math.max(...all)];
    plot.plane(this.page.range);
    plot.colours(values, (value) => sequential((value - low) / (high - low || 1)));
    const pieces = roundLevels(low, high).flatMap((level) => levelPieces(values, this.places, level));
    plot.addInside(`<path class="contours" d="${pieces.map((piece) => pathOf(piece, plot.x, plot.y)).join("")}"/>`);
    plot.curves(this.boundary, "white");
    plot.end(`Heat map of the loss ${this.entry.title} over the plane: from ${shown(low)} to ${shown(high)}`);
    this.scale(plot, HEAT.loss, [low, (low + high) / 2, high]);
  }

  scale(plot, stops, marks) {
    const place = plot.place.nextElementSibling;
    place.innerHTML = `<i style="background: linear-gradient(to right, ${stops.join(", ")})"></i>` +
      marks.map((mark) => `<span>${shown(Math.abs(mark) < 1e-6 * marks.at(-1) ? 0 : mark)}</span>`).join("");
  }

  drawFlows(isNew = false) {
    this.flows = this.page.starts.map((start) => this.summary(flow(this.loss, start, this.largest)));
    const {range} = this.page, plot = this.plots.plane;
    plot.plane(range);
    plot.addInside(`<path class="arrows" d="${arrowPath(plot, this.loss.evaluate, range, ARROWS)}"/>`);
    plot.curves(this.boundary, "plain");
    this.flows.forEach(({points}, i) => {
      const last = i === this.flows.length - 1;
      plot.addInside(`<path class="flow${last ? " last" : ""}${last && isNew ? " drawn" : ""}" pathLength="1" ` +
        `d="${pathOf(thinned(points), plot.x, plot.y)}"/>` + this.dot("start", points[0]) + this.dot("stop", points.at(-1)));
      const [x, y] = [plot.x(points[0][0]), plot.y(points[0][1])], near = x > plot.width - 40;
      if (points[0].every((s) => s >= range[0] && s <= range[1])) plot.add(`<text class="flow-name" x="${near ? x - 10 : x + 10}" y="${y + 5}" text-anchor="${near ? "end" : "start"}">` +
        `${this.page.letter(i)}</text>`);
    });
    if (this.target) {
      const [x, y] = [plot.x(this.target[0]), plot.y(this.target[1])], near = x > plot.width - 130;
      plot.add(`<path class="target" d="M${x} ${y - 8}L${x + 8} ${y}L${x} ${y + 8}L${x - 8} ${y}Z"/>` +
        `<text class="name" x="${near ? x - 14 : x + 14}" y="${y + 5}" text-anchor="${near ? "end" : "start"}">` +
        `T ${targetText(this.target)}</text>`);
    }
    const target = this.target ? `, its target T at ${pointText(this.target)}` : "";
    plot.end(`${this.entry.title} in the plane of s_n (across) and s_p (up): the decision boundary${target}, arrows of ` +
      `gradient descent, and the flows of ${this.flows.length} pairs, which the table below lists`);
    this.find("tbody").innerHTML = this.flows.map(({points, losses}, i) =>
      `<tr><th scope="row">${this.page.letter(i)}</th><td>${pointText(points[0])}</td>` +
      `<td>${pointText(points.at(-1))}</td><td>${shown(losses[0])} → ${shown(losses.at(-1))}</td>` +
      `<td>${points.length - 1}</td></tr>`).join("");
    this.drawCourse();
    this.tell(this.page.pointed);
  }

  dot(kind, [s_n, s_p]) {
    return `<circle class="${kind}" cx="${this.plots.plane.x(s_n)}" cy="${this.plots.plane.y(s_p)}" r="5"/>`;
  }

  // The flow with the step at which it enters what the boundary encloses; -1 if it never does.
  summary(found) {
    return {...found, crossing: found.points.findIndex(([s_n, s_p]) => this.isSolved(s_n, s_p))};
  }

  isSolved(s_n, s_p) {
    const {boundary, objective} = this.loss;
    const [p, n] = [boundary.positive(s_p)[0], boundary.negative(s_n)[0]];
    return objective.sidesApart ? p < 0 && n < 0 : p + n < 0;
  }

  drawCourse() {
    const plot = this.plots.course, last = this.flows.at(-1);
    const caption = plot.place.parentElement.querySelector("figcaption");
    const steps = last ? Math.max(1, last.points.length - 1) : 100;
    const values = last ? last.points.flat() : [0];
    plot.begin([0, steps], [Math.min(0, ...values), 1], {
      horizontal: "step of descent", horizontalClass: "", vertical: "similarity", verticalClass: "",
    });
    if (!last) {
      plot.end("No flow yet");
      caption.textContent = "Click into the plane to let a pair go.";
      return;
    }
    const letter = this.page.letter(this.flows.length - 1);
    for (const [which, i] of [["negative", 0], ["positive", 1]]) {
      const curve = thinned(last.points.map((point, step) => [step, point[i]]));
      plot.addInside(`<path class="course ${which}" d="${pathOf(curve, plot.x, plot.y)}"/>`);
    }
    if (last.crossing >= 0) {
      const place = `M${plot.x(last.crossing)} ${EDGE.top}v${plot.inner.height}`;
      plot.addInside(`<path class="crossing" d="${place}"/>`);
    }
    caption.textContent = last.crossing >= 0
      ? `${letter} crosses at ${pointText(last.points[last.crossing])}, after ${last.crossing} steps.`
      : `${letter} does not cross the boundary.`;
    plot.end(`The two similarities of flow ${letter} over ${steps} steps of descent. ${caption.textContent}`);
  }

  // What the loss is at a point of either plane; without one, where the last flow began.
  tell(point) {
    for (const figure of ["plane", "positive", "negative", "surface"]) {
      const plot = this.plots[figure];
      plot.svg.querySelector(".pointer")?.remove();
      if (point) plot.svg.insertAdjacentHTML("beforeend", `<circle class="pointer ${figure === "plane" ? "" : "white"}" ` +
        `cx="${plot.x(point[0])}" cy="${plot.y(point[1])}" r="5" pointer-events="none"/>`);
    }
    const at = point ?? this.page.starts.at(-1) ?? [0.5, 0.5];
    const {loss, negative, positive} = this.loss.evaluate(...at);
    this.find(".readout").innerHTML = `at <b>${pointText(at)}</b>: L = <b>${shown(loss)}</b>, ` +
      `∂L/∂<i>s</i><sub>n</sub> = <b>${shown(negative)}</b>, ∂L/∂<i>s</i><sub>p</sub> = <b>${shown(positive)}</b>, ` +
      `${this.isSolved(...at) ? "on the wanted side" : "not yet solved"}`;
  }
}

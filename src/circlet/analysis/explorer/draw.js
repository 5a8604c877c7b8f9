"use strict";
// A square figure of the plane: a canvas for colours under an SVG for axes, curves and points.

const EDGE = {left: 54, right: 12, top: 10, bottom: 42};
const fixed = (value) => (Math.round(100 * value) / 100 + 0).toFixed(2).replace("-", "−");
const side = (letter) => `<tspan class="symbol">s</tspan><tspan class="sub" dy="4">${letter}</tspan>`;

// Three significant digits, as people write them.
function shown(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(size >= 100 ? 4 : 3)));
  return text.replace("e+", "e").replaceAll("-", "−");
}

function pathOf(points, x, y) {
  return points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(3)} ${y(b).toFixed(3)}`).join("");
}

// Some 400 of the points, the first and the last among them.
function thinned(points) {
  const every = Math.ceil(points.length / 400);
  return points.filter((_, i) => i % every === 0 || i === points.length - 1);
}

class Plot {
  constructor(place) {
    this.place = place;
    place.innerHTML = '<canvas aria-hidden="true"></canvas><svg role="img"></svg>';
    [this.canvas, this.svg] = place.children;
  }

  // The width that there is. Apart from drawing: after each change the browser would lay out the page again.
  measure() { this.width = this.place.clientWidth; }

  // Axes of two ranges over the width measured; x and y then turn values into pixels.
  begin(horizontal, vertical, names) {
    this.height = this.width - EDGE.left - EDGE.right + EDGE.top + EDGE.bottom;
    const inner = {width: this.width - EDGE.left - EDGE.right, height: this.height - EDGE.top - EDGE.bottom};
    this.inner = inner;
    this.x = (v) => EDGE.left + ((v - horizontal[0]) / (horizontal[1] - horizontal[0])) * inner.width;
    this.y = (v) => EDGE.top + ((vertical[1] - v) / (vertical[1] - vertical[0])) * inner.height;
    this.fromPixels = (px, py) => [
      horizontal[0] + ((px - EDGE.left) / inner.width) * (horizontal[1] - horizontal[0]),
      vertical[1] - ((py - EDGE.top) / inner.height) * (vertical[1] - vertical[0]),
    ];
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.svg.setAttribute("width", this.width);
    this.svg.setAttribute("height", this.height);
    const foot = this.height - EDGE.bottom, end = this.width - EDGE.right;
    this.parts = [
      `<defs><clipPath id="${this.place.id}-inside"><rect x="${EDGE.left}" y="${EDGE.top}" width="${inner.width}" ` +
      `height="${inner.height}"/></clipPath></defs>`,
    ];
    for (const tick of ticks(horizontal)) {
      this.parts.push(`<path class="grid" d="M${this.x(tick)} ${EDGE.top}V${foot}"/>` +
        `<text class="tick" x="${this.x(tick)}" y="${foot + 16}" text-anchor="middle">${shown(tick)}</text>`);
    }
    for (const tick of ticks(vertical)) {
      this.parts.push(`<path class="grid" d="M${EDGE.left} ${this.y(tick)}H${end}"/>` +
        `<text class="tick" x="${EDGE.left - 7}" y="${this.y(tick) + 4}" text-anchor="end">${shown(tick)}</text>`);
    }
    this.parts.push(
      `<text class="axis ${names.horizontalClass}" x="${(EDGE.left + end) / 2}" y="${this.height - 7}" ` +
      `text-anchor="middle">${names.horizontal}</text>`,
      `<text class="axis ${names.verticalClass}" transform="translate(12 ${(EDGE.top + foot) / 2}) rotate(-90)" ` +
      `text-anchor="middle">${names.vertical}</text>`,
    );
  }

  plane(range) {
    this.begin(range, range, {
      horizontal: `${side("n")}<tspan dy="-4">, of the negative</tspan>`, horizontalClass: "negative",
      vertical: `${side("p")}<tspan dy="-4">, of the positive</tspan>`, verticalClass: "positive",
    });
  }

  // Cells of colour under the axes, the first row at the bottom.
  colours(values, colour) {
    const size = values.length, pixels = new ImageData(size, size);
    values.forEach((row, i) => row.forEach((value, j) =>
      pixels.data.set([...colour(value), 255], 4 * ((size - 1 - i) * size + j))));
    this.canvas.width = this.canvas.height = size;
    this.canvas.getContext("2d").putImageData(pixels, 0, 0);
    Object.assign(this.canvas.style, {
      left: `${EDGE.left}px`, top: `${EDGE.top}px`, width: `${this.inner.width}px`, height: `${this.inner.height}px`,
    });
  }

  // Anything as SVG; what is inside is cut off at the axes.
  add(markup) { this.parts.push(markup); }
  addInside(markup) { this.parts.push(`<g clip-path="url(#${this.place.id}-inside)">${markup}</g>`); }

  curves(branches, kind) {
    const d = branches.map((branch) => pathOf(branch, this.x, this.y)).join("");
    this.addInside(`<path class="casing ${kind}" d="${d}"/><path class="boundary ${kind}" d="${d}"/>`);
  }

  end(words) {
    this.svg.setAttribute("aria-label", words);
    this.svg.innerHTML = this.parts.join("");
  }
}

function ticks([low, high]) {
  const size = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(size));
  const round = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= size * 0.999) * power;
  const found = [];
  for (let i = Math.ceil(low / round - 1e-9); i * round <= high + 1e-9 * round; i++)
    found.push(Number((i * round).toPrecision(12)));
  return found;
}

// Colours between stops, each "#rrggbb", for shares from 0 to 1.
function ramp(stops) {
  const parts = stops.map((stop) => [1, 3, 5].map((i) => parseInt(stop.slice(i, i + 2), 16)));
  return (share) => {
    const place = Math.min(1, Math.max(0, share)) * (parts.length - 1);
    const i = Math.min(parts.length - 2, Math.floor(place));
    return parts[i].map((value, k) => value + (parts[i + 1][k] - value) * (place - i));
  };
}

// Arrows against the gradient, in proportion to it; none where it is below a fiftieth of the largest.
function arrowPath(plot, evaluate, [low, high], count) {
  const distance = (high - low) / count, pixels = plot.inner.width / count;
  const places = spread(low + distance / 2, high - distance / 2, count);
  const found = places.flatMap((s_p) => places.map((s_n) => ({s_n, s_p, ...evaluate(s_n, s_p)})));
  const largest = Math.max(...found.map(({negative, positive}) => Math.hypot(negative, positive)));
  const written = (...pixels) => pixels.map((pixel) => pixel.toFixed(1)).join(" ");
  let d = "";
  for (const {s_n, s_p, negative, positive} of found) {
    const length = Math.hypot(negative, positive);
    if (!(length > 0.02 * largest)) continue;
    const half = (0.46 * pixels * length) / largest, [across, up] = [-negative / length, positive / length];
    const [x, y] = [plot.x(s_n), plot.y(s_p)], [tipX, tipY] = [x + half * across, y + half * up];
    const head = Math.min(6, 0.3 * pixels, 1.2 * half);
    d += `M${written(x - half * across, y - half * up)}L${written(tipX, tipY)}`;
    for (const turn of [-1, 1]) {
      const [back, aside] = [head * 0.88, turn * head * 0.48];
      d += `M${written(tipX, tipY)}l${written(-back * across - aside * up, -back * up + aside * across)}`;
    }
  }
  return d;
}

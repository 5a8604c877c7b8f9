"use strict";
// The decision boundary as curves, its target, the lines of equal loss, and the flow of a pair.

const LINES = 201;

function spread(low, high, count) {
  return Array.from({length: count}, (_, i) => low + ((high - low) * i) / (count - 1));
}

// The root of a function between two places where its sign differs; null where it leaps over 0.
function bisect(f, low, high) {
  let atLow = f(low), atHigh = f(high);
  const difference = Math.abs(atHigh - atLow);
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2, value = f(middle);
    if (value > 0 === atLow > 0) [low, atLow] = [middle, value];
    else [high, atHigh] = [middle, value];
  }
  // A continuous function hardly changes over the last interval, even at arccos's infinite slope.
  return Math.abs(atHigh - atLow) <= 1e-4 * difference + 1e-12 ? (low + high) / 2 : null;
}

function roots(f, places) {
  const found = [];
  for (let i = 1; i < places.length; i++) {
    if (f(places[i - 1]) > 0 === f(places[i]) > 0) continue;
    const root = bisect(f, places[i - 1], places[i]);
    if (root !== null) found.push(root);
  }
  return found;
}

// Curves of [s_n, s_p]: where the logits add up to 0, or the corner in which both are below 0.
function decisionBoundary({boundary, objective}, [low, high]) {
  const places = spread(low, high, LINES);
  const positive = (s) => boundary.positive(s)[0], negative = (s) => boundary.negative(s)[0];
  return objective.sidesApart ? corner(positive, negative, places) : marching(positive, negative, places);
}

function corner(positive, negative, places) {
  const low = places[0], high = places.at(-1);
  const [s_p] = roots(positive, places), [s_n] = roots(negative, places);
  if (s_p !== undefined && s_n !== undefined) return [[[low, s_p], [s_n, s_p], [s_n, high]]];
  // One threshold is out of sight: what is left of the corner is a line, if the other side can be solved.
  if (s_p !== undefined && negative(low) < 0) return [[[low, s_p], [high, s_p]]];
  if (s_n !== undefined && positive(high) < 0) return [[[s_n, low], [s_n, high]]];
  return [];
}

// Marching squares with the crossings found to float64 precision, joined cell by cell.
function marching(positive, negative, places) {
  const last = places.length - 1, atP = places.map(positive), atN = places.map(negative);
  const above = (i, j) => atP[i] + atN[j] > 0;
  const crossings = new Map(), links = new Map(), cells = new Map();
  const add = (key, point, ...around) => {
    if (point.includes(null)) return;
    crossings.set(key, point);
    links.set(key, []);
    for (const [i, j] of around) if (i >= 0 && j >= 0 && i < last && j < last) cells.set(i * last + j, [i, j]);
  };
  for (let i = 0; i <= last; i++) for (let j = 0; j <= last; j++) {
    if (j < last && above(i, j) !== above(i, j + 1))
      add(`n${i},${j}`, [bisect((s) => negative(s) + atP[i], places[j], places[j + 1]), places[i]],
        [i, j], [i - 1, j]);
    if (i < last && above(i, j) !== above(i + 1, j))
      add(`p${i},${j}`, [places[j], bisect((s) => positive(s) + atN[j], places[i], places[i + 1])],
        [i, j], [i, j - 1]);
  }
  for (const [i, j] of cells.values()) {
    const [bottom, right, top, left] = [`n${i},${j}`, `p${i},${j + 1}`, `n${i + 1},${j}`, `p${i},${j}`];
    const crossed = [bottom, right, top, left].filter((side) => crossings.has(side));
    let pairs = crossed.length === 2 ? [crossed] : [];
    if (crossed.length === 4) {
      const mean = (atP[i] + atP[i + 1] + atN[j] + atN[j + 1]) / 2;
      const aroundOthers = mean > 0 === above(i, j);
      pairs = aroundOthers ? [[bottom, right], [top, left]] : [[bottom, left], [top, right]];
    }
    for (const [first, second] of pairs) { links.get(first).push(second); links.get(second).push(first); }
  }
  const branches = [];
  const unvisited = new Set([...crossings.keys()].sort((a, b) => links.get(a).length - links.get(b).length));
  while (unvisited.size) {
    const path = [];
    for (let side = unvisited.values().next().value; side; side = links.get(side).find((next) => unvisited.has(next))) {
      path.push(side);
      unvisited.delete(side);
    }
    if (path.length > 2 && links.get(path.at(-1)).includes(path[0])) path.push(path[0]);
    if (path.length > 1) branches.push(path.map((side) => crossings.get(side)));
  }
  return branches;
}

// T: the point of the boundary with the smallest gap s_p - s_n; null where no single one has it, as on a line.
function targetPoint({boundary}, branches, [low, high]) {
  const gap = ([s_n, s_p]) => s_p - s_n;
  let best = null, from = null, index = 0;
  for (const branch of branches) branch.forEach((point, i) => {
    if (best === null || gap(point) < gap(best)) [best, from, index] = [point, branch, i];
  });
  if (best === null) return null;
  const closed = gap(from[0]) === gap(from.at(-1)) && from[0][0] === from.at(-1)[0];
  if (!closed && (index === 0 || index === from.length - 1)) return null;
  const far = branches.flat().filter(([s_n, s_p]) => Math.hypot(s_n - best[0], s_p - best[1]) > 0.05 * (high - low));
  if (far.some((point) => gap(point) < gap(best) + 1e-6)) return null;
  // Between the neighbours of the best point, by the golden section. A corner is its own.
  const [before, after] = [from.at(index - 1), from[(index + 1) % from.length]];
  if (before[0] === best[0] || before[1] === best[1]) if (after[0] === best[0] || after[1] === best[1]) return best;
  const width = (2 * (high - low)) / LINES;
  const on = (s_n) => {
    const f = (s) => boundary.positive(s)[0] + boundary.negative(s_n)[0];
    const root = f(best[1] - width) > 0 !== f(best[1] + width) > 0 ? bisect(f, best[1] - width, best[1] + width) : null;
    return root === null ? [s_n, Infinity] : [s_n, root];
  };
  let [left, right] = [best[0] - width, best[0] + width];
  const golden = (Math.sqrt(5) - 1) / 2;
  for (let i = 0; i < 60; i++) {
    const first = right - golden * (right - left), second = left + golden * (right - left);
    if (gap(on(first)) < gap(on(second))) right = second;
    else left = first;
  }
  const found = on((left + right) / 2);
  return gap(found) <= gap(best) ? found : best;
}

// Round numbers between the smallest and the largest of the values, at most ten of them.
function roundLevels(low, high) {
  const raw = (high - low) / 10;
  if (!(raw > 0)) return [];
  const power = 10 ** Math.floor(Math.log10(raw));
  const size = [1, 2, 5, 10].find((factor) => factor * power >= raw) * power;
  const levels = [];
  for (let i = Math.ceil(low / size) + (low >= 0); i * size < high; i++) levels.push(i * size);
  return levels;
}

// Pieces of the lines on which the values (rows of s_p, columns of s_n) have a level: [[s_n, s_p], [s_n, s_p]].
function levelPieces(values, places, level) {
  const pieces = [];
  const cut = (a, b, from, to) => from + ((to - from) * (level - a)) / (b - a);
  for (let i = 0; i + 1 < places.length; i++) for (let j = 0; j + 1 < places.length; j++) {
    const [a, b, c, d] = [values[i][j], values[i][j + 1], values[i + 1][j], values[i + 1][j + 1]];
    const [x, right, y, top] = [places[j], places[j + 1], places[i], places[i + 1]];
    const points = [];
    if (a > level !== b > level) points.push([cut(a, b, x, right), y]);
    if (b > level !== d > level) points.push([right, cut(b, d, y, top)]);
    if (c > level !== d > level) points.push([cut(c, d, x, right), top]);
    if (a > level !== c > level) points.push([x, cut(a, c, y, top)]);
    for (let k = 0; k + 1 < points.length; k += 2) pieces.push([points[k], points[k + 1]]);
  }
  return pieces;
}

const STEP = 0.004, REST = 1 / 200, MOST_STEPS = 4000;

// Gradient descent from a point, inside the plane that cosines leave: {points, losses}.
// A step is STEP long where the gradient is as large as `largest`, and never longer.
function flow({evaluate}, start, largest) {
  const inside = (s) => Math.min(1, Math.max(-1, s));
  const points = [start], losses = [];
  let [s_n, s_p] = start;
  for (let i = 0; ; i++) {
    const {loss, negative, positive} = evaluate(s_n, s_p);
    losses.push(loss);
    const length = Math.hypot(negative, positive);
    const size = length > largest ? STEP / length : STEP / largest;
    const [next_n, next_p] = [inside(s_n - size * negative), inside(s_p - size * positive)];
    if (i === MOST_STEPS || Math.hypot(next_n - s_n, next_p - s_p) < REST * STEP) break;
    points.push([s_n, s_p] = [next_n, next_p]);
  }
  return {points, losses};
}

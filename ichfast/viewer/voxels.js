"use strict";
// What the page computes, without the page: `pack.py` in reverse, shades, outlines, measures.

const LOWEST_HU = -1024;
const SHADES = 4096; // HU from −1024 to 3071

/** A slice as `pack_slice` wrote it -> {hu Int16Array, probability and target Uint8Array, or null}. */
async function unpackSlice(base64, height, width) {
  return splitPlanes(await inflate(base64), height, width);
}

async function inflate(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(plain).arrayBuffer());
}

function splitPlanes(bytes, height, width) {
  const size = height * width;
  const plane = (k) => bytes.subarray(k * size, (k + 1) * size);
  return {
    hu: addDifferences(plane(0), plane(1), height, width),
    probability: plane(2),
    target: bytes.length > 3 * size ? plane(3) : null,
  };
}

/** HU from the zigzag of their differences along both axes. */
function addDifferences(low, high, height, width) {
  const hu = new Int16Array(height * width);
  for (let y = 0, i = 0; y < height; y++) {
    let step = 0; // from the row above
    for (let x = 0; x < width; x++, i++) {
      const zigzag = low[i] | (high[i] << 8);
      step += (zigzag >>> 1) ^ -(zigzag & 1);
      hu[i] = step + (y > 0 ? hu[i - width] : 0);
    }
  }
  return hu;
}

/** The grey of each HU, from black at level − width/2 to white at level + width/2. */
function makeShades(level, width) {
  const shades = new Uint8ClampedArray(SHADES);
  const black = level - width / 2;
  for (let i = 0; i < SHADES; i++) shades[i] = (255 * (i + LOWEST_HU - black)) / width;
  return shades;
}

/** Pixels above each step of the threshold, from how often each of the 256 values occurs. */
function countAbove(histogram) {
  const above = new Array(histogram.length).fill(0);
  for (let q = histogram.length - 2; q >= 0; q--) above[q] = above[q + 1] + histogram[q + 1];
  return above;
}

/** Probability at a step of the slider; `own` is the step of the model's threshold. */
function probabilityAt(step, own, threshold) {
  return step === own ? threshold : (step + 1) / 255;
}

/** Sum over slices of pixels × slab × area in mL; without area or slabs the sum of pixels. */
function measureVolume(counts, area, slabs) {
  if (!area || !slabs) return counts.reduce((sum, count) => sum + count, 0);
  return (counts.reduce((sum, count, i) => sum + count * slabs[i], 0) * area) / 1000;
}

/** With one decimal; a tie goes to the even digit, as Python's f"{value:.1f}" has it. */
function formatTenths(value) {
  const tie = (4 * value) % 2 === 1; // what is exactly half-way in binary is an odd quarter
  const tenths = Math.floor(10 * value);
  return tie && tenths % 2 === 0 ? (tenths / 10).toFixed(1) : value.toFixed(1);
}

/**
 * The edges between pixels above the step and others, as [x0, y0, x1, y1, …] in pixels with (0, 0)
 * the image's corner; along a line they are joined.
 */
function traceEdges(values, step, height, width) {
  const edges = [];
  const inside = (x, y) =>
    x >= 0 && y >= 0 && x < width && y < height && values[y * width + x] > step;
  const box = findBox(values, step, height, width);
  if (!box) return edges;
  const [left, top, right, bottom] = box;
  for (let y = top; y <= bottom; y++) {
    for (let x = left; x < right; x++) {
      const from = x;
      while (x < right && inside(x, y - 1) !== inside(x, y)) x++;
      if (x > from) edges.push(from, y, x, y);
    }
  }
  for (let x = left; x <= right; x++) {
    for (let y = top; y < bottom; y++) {
      const from = y;
      while (y < bottom && inside(x - 1, y) !== inside(x, y)) y++;
      if (y > from) edges.push(x, from, x, y);
    }
  }
  return edges;
}

/** [left, top, right, bottom] around what is above the step, the last two exclusive; or null. */
function findBox(values, step, height, width) {
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (values[i] <= step) continue;
      if (x < left) left = x;
      if (x >= right) right = x + 1;
      if (y < top) top = y;
      bottom = y + 1;
    }
  }
  return bottom > 0 ? [left, top, right, bottom] : null;
}

/**
 * Components over all slices (26 neighbours): how many, and of the largest its pixels by slice and
 * its box. Pixels weigh as much as their slice's slab. Null where nothing is above the step.
 */
function findLargest(slices, step, height, width, slabs) {
  const size = height * width;
  const seen = new Uint8Array(slices.length * size);
  const stack = [];
  let found = 0;
  let largest = null;
  const push = (at) => {
    const slice = Math.floor(at / size);
    if (seen[at] || slices[slice][at - slice * size] <= step) return;
    seen[at] = 1;
    stack.push(at);
  };
  for (let seed = 0; seed < seen.length; seed++) {
    push(seed);
    if (stack.length === 0) continue;
    found++;
    const counts = new Array(slices.length).fill(0);
    const box = [width, height, 0, 0];
    while (stack.length > 0) {
      const at = stack.pop();
      const slice = Math.floor(at / size);
      const y = Math.floor((at - slice * size) / width);
      const x = at - slice * size - y * width;
      counts[slice]++;
      box[0] = Math.min(box[0], x);
      box[1] = Math.min(box[1], y);
      box[2] = Math.max(box[2], x + 1);
      box[3] = Math.max(box[3], y + 1);
      for (let k = Math.max(slice - 1, 0); k <= Math.min(slice + 1, slices.length - 1); k++)
        for (let j = Math.max(y - 1, 0); j <= Math.min(y + 1, height - 1); j++)
          for (let i = Math.max(x - 1, 0); i <= Math.min(x + 1, width - 1); i++)
            push(k * size + j * width + i);
    }
    const weight = measureVolume(counts, 1, slabs);
    if (!largest || weight > largest.weight) largest = { weight, counts, box };
  }
  return largest && { found, counts: largest.counts, box: largest.box };
}

/** The slice that a key leads to, within 0 … n − 1; null for any other key. */
function moveByKey(key, slice, n) {
  const moves = {
    ArrowUp: slice + 1,
    ArrowRight: slice + 1,
    ArrowDown: slice - 1,
    ArrowLeft: slice - 1,
    PageUp: slice + 5,
    PageDown: slice - 5,
    Home: 0,
    End: n - 1,
  };
  return Object.hasOwn(moves, key) ? clamp(moves[key], 0, n - 1) : null;
}

const NOTCH = 50; // pixels: no mouse turns by less, a touchpad adds up to it

/** Slices up for a turn of the wheel, and what remains of it for the next event. */
function turnWheel(rest, delta, mode) {
  const pixels = delta * [1, 34, 100][mode]; // of pixels, lines, pages
  const turned = rest + clamp(pixels, -NOTCH, NOTCH);
  const steps = Math.trunc(turned / NOTCH);
  return { slices: -steps || 0, rest: turned - steps * NOTCH };
}

/** The window after a drag by (dx, dy) pixels: to the right wider, upwards brighter. */
function dragWindow([level, width], dx, dy) {
  const pace = Math.max(0.5, width / 200); // HU per pixel
  return [
    clamp(Math.round(level + dy * pace), LOWEST_HU, LOWEST_HU + SHADES - 1),
    clamp(Math.round(width + dx * pace), 1, SHADES),
  ];
}

/** Where a picture of height × width pixels of the spacing lies in a stage, as large as it fits. */
function fitPicture(stage, height, width, spacing) {
  const [row, column] = spacing || [1, 1];
  const scale = Math.min(stage.width / (width * column), stage.height / (height * row));
  const [w, h] = [width * column * scale, height * row * scale];
  return { x: (stage.width - w) / 2, y: (stage.height - h) / 2, width: w, height: h };
}

/** All n slices, from the first one shown outwards. */
function orderOutwards(first, n) {
  const order = Array.from({ length: n }, (_, i) => i);
  return order.sort((a, b) => Math.abs(a - first) - Math.abs(b - first) || a - b);
}

/** The slice with the largest count. */
function findPeak(counts) {
  return counts.indexOf(Math.max(...counts));
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

if (typeof module !== "undefined") {
  module.exports = {
    addDifferences,
    countAbove,
    dragWindow,
    findBox,
    findLargest,
    findPeak,
    fitPicture,
    formatTenths,
    makeShades,
    measureVolume,
    moveByKey,
    orderOutwards,
    probabilityAt,
    splitPlanes,
    traceEdges,
    turnWheel,
    unpackSlice,
  };
}

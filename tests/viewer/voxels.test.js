"use strict";
const assert = require("node:assert/strict");
const { test } = require("node:test");
const voxels = require("../../ichfast/viewer/voxels.js");

test("shades run from black to white over the window", () => {
  const shades = voxels.makeShades(40, 80);
  const at = (hu) => shades[hu + 1024];
  assert.deepEqual([-1024, 0, 40, 80, 3071].map(at), [0, 0, 128, 255, 255]);
});

test("counts above a step are strict", () => {
  assert.deepEqual(voxels.countAbove([5, 1, 0, 2]), [3, 2, 2, 0]);
});

test("the model's own step has its own threshold", () => {
  assert.equal(voxels.probabilityAt(109, 109, 0.43), 0.43);
  assert.equal(voxels.probabilityAt(254, 109, 0.43), 1);
});

test("volume is pixels times area times slab, or pixels", () => {
  assert.equal(voxels.measureVolume([100, 200], 0.25, [5, 10]), 0.625);
  assert.equal(voxels.measureVolume([100, 200], null, [5, 10]), 300);
  assert.equal(voxels.measureVolume([100, 200], 0.25, null), 300);
});

test("edges go around the pixels, joined along lines, and along the image's border", () => {
  const values = [9, 9, 0, 0, 0, 0];
  const edges = voxels.traceEdges(values, 8, 2, 3);
  assert.deepEqual(edges, [0, 0, 2, 0, 0, 1, 2, 1, 0, 0, 0, 1, 2, 0, 2, 1]);
  assert.deepEqual(voxels.traceEdges(values, 9, 2, 3), []);
});

test("pixels side by side, where the edge changes sides, are not joined over a gap", () => {
  const edges = voxels.traceEdges([1, 0, 1], 0, 1, 3);
  const tops = [];
  for (let k = 0; k < edges.length; k += 4) if (edges[k + 1] === 0 && edges[k + 3] === 0) tops.push(edges.slice(k, k + 4));
  assert.deepEqual(tops, [[0, 0, 1, 0], [2, 0, 3, 0]]);
});

test("components touch over corners and over slices", () => {
  const first = [1, 0, 0, 0, 0, 0, 0, 0, 1];
  const second = [0, 0, 0, 0, 1, 0, 0, 0, 0];
  const found = voxels.findLargest([first, second], 0, 3, 3, null);
  assert.deepEqual(found, { found: 1, counts: [2, 1], box: [0, 0, 3, 3] });
});

test("the largest component is the one of most volume", () => {
  const two = [1, 1, 0, 0, 0];
  const thick = [0, 0, 0, 0, 1];
  assert.deepEqual(voxels.findLargest([two, thick], 0, 1, 5, null).counts, [2, 0]);
  const largest = voxels.findLargest([two, thick], 0, 1, 5, [1, 3]);
  assert.deepEqual(largest, { found: 2, counts: [0, 1], box: [4, 0, 5, 1] });
  assert.equal(voxels.findLargest([two, thick], 1, 1, 5, [1, 3]), null);
});

test("rows end at the image's border", () => {
  const found = voxels.findLargest([[0, 1, 1, 0]], 0, 2, 2, null);
  assert.equal(found.found, 1); // over the corner
  assert.equal(voxels.findLargest([[0, 0, 1, 1, 0, 0]], 0, 2, 3, null).found, 2);
});

test("keys move by one, by five and to the ends, and stop there", () => {
  const from = (slice, key) => voxels.moveByKey(key, slice, 28);
  assert.deepEqual(["ArrowUp", "ArrowDown", "PageUp", "PageDown", "Home", "End"].map((key) => from(10, key)), [11, 9, 15, 5, 0, 27]);
  assert.equal(from(27, "ArrowRight"), 27);
  assert.equal(from(2, "PageDown"), 0);
  assert.equal(from(2, "Tab"), null);
  assert.equal(from(2, "toString"), null);
});

test("a notch of the wheel is a slice; a touchpad adds up to one", () => {
  assert.deepEqual(voxels.turnWheel(0, 120, 0), { slices: -1, rest: 0 });
  assert.deepEqual(voxels.turnWheel(0, -3, 1), { slices: 1, rest: 0 });
  let [rest, slices] = [0, 0];
  for (let i = 0; i < 25; i++) {
    const turned = voxels.turnWheel(rest, 4, 0);
    rest = turned.rest;
    slices += turned.slices;
  }
  assert.equal(slices, -2);
});

test("a drag widens to the right and brightens upwards, within bounds", () => {
  assert.deepEqual(voxels.dragWindow([40, 80], 10, -20), [30, 85]);
  assert.deepEqual(voxels.dragWindow([40, 80], -9999, 99999), [3071, 1]);
});

test("a picture fills its stage with pixels of the right shape", () => {
  const place = voxels.fitPicture({ width: 300, height: 100 }, 50, 100, [1, 0.5]);
  assert.deepEqual(place, { x: 100, y: 0, width: 100, height: 100 });
  assert.deepEqual(voxels.fitPicture({ width: 100, height: 300 }, 10, 10, null), { x: 0, y: 100, width: 100, height: 100 });
});

test("slices are unpacked outwards from the first", () => {
  assert.deepEqual(voxels.orderOutwards(3, 6), [3, 2, 4, 1, 5, 0]);
  assert.equal(voxels.findPeak([0, 4, 9, 9]), 2);
});

// The study on the page: its slices as they are unpacked, its numbers in words, the strip of areas.

const get = (id) => document.getElementById(id);
const study = JSON.parse(get("study").textContent);
const n = study.histograms.length;
const { height, width, spacing } = study;
const area = spacing && spacing[0] * spacing[1];
const above = study.histograms.map(countAbove); // [slice][step]
const slices = new Array(n); // promises of them
const ready = new Array(n).fill(null); // unpacked
const state = {
  slice: study.first,
  step: study.step,
  window: study.window,
  pointer: null, // the mouse over the stage, {x, y}
  component: null, // of the last search: {found, counts, box}
};

/** The document stands still while this script runs: all but the first slice come after it. */
const parsed = new Promise((resolve) => document.addEventListener("DOMContentLoaded", resolve));

function loadSlice(i) {
  slices[i] ??= readSlice(i);
  return slices[i];
}

async function readSlice(i) {
  if (i !== study.first) await parsed;
  const text = get(`slice-${i}`);
  ready[i] = await unpackSlice(text.textContent, height, width);
  text.remove(); // it is no longer needed
  return ready[i];
}

async function loadAll() {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser is too old (Chrome 97, Firefox 113 or Safari 16.4 will do)");
  }
  for (const i of orderOutwards(study.first, n)) await loadSlice(i);
  performance.mark("all slices");
}

function fail(error) {
  get("failure").textContent = `The slices cannot be shown: ${error.message}.`;
  get("failure").hidden = false;
}

// Numbers

const OWN_ONLY = "The interval holds at the model's own threshold.";
const interval = get("interval").textContent;
const unit = area ? "mm²" : "pixels";
const hasVolume = Boolean(area && study.slabs);

function countSlices() {
  return above.map((counts) => counts[state.step]);
}

function formatArea(count) {
  return area ? `${formatTenths(count * area)} mm²` : `${count} pixels`;
}

function formatVolume(counts) {
  const volume = measureVolume(counts, area, study.slabs);
  return hasVolume ? `${formatTenths(volume)} mL` : `${volume} pixels`;
}

function formatThreshold(step) {
  return probabilityAt(step, study.step, study.threshold).toFixed(3);
}

function showNumbers() {
  const own = state.step === study.step;
  const counts = countSlices();
  get("volume").textContent = formatVolume(counts);
  get("interval").textContent = own || !interval ? interval : OWN_ONLY;
  get("area").textContent = formatArea(counts[state.slice]);
  if (study.target) get("target").textContent = formatTarget();
  const text = formatThreshold(state.step) + (own ? " (the model's own)" : "");
  get("threshold-text").textContent = text;
  get("threshold").value = state.step;
  get("threshold").setAttribute("aria-valuetext", text);
  showSlice(counts);
  drawStrip(counts);
  if (get("areas").open) listAreas(counts);
}

function formatTarget() {
  const here = formatArea(study.target[state.slice]);
  return study.oneScan ? `${formatVolume(study.target)}; here ${here}` : here;
}

function showSlice(counts) {
  const label = study.labels ? study.labels[state.slice] : "";
  get("number").textContent = `${state.slice + 1} / ${n}`;
  get("label").textContent = label;
  const text = [`${state.slice + 1} of ${n}`, label, formatArea(counts[state.slice])];
  for (const id of ["stage", "strip"]) {
    get(id).setAttribute("aria-valuenow", state.slice + 1);
    get(id).setAttribute("aria-valuetext", text.filter(Boolean).join(", "));
  }
}

function listAreas(counts) {
  const heads = ["slice", study.labels && "label", unit, study.target && `target, ${unit}`];
  const number = (count) => (area ? formatTenths(count * area) : count);
  const rows = counts.map((count, i) => [
    i + 1,
    study.labels && study.labels[i],
    number(count),
    study.target && number(study.target[i]),
  ]);
  const table = get("areas").querySelector("tbody");
  table.replaceChildren(makeRow("th", heads), ...rows.map((cells) => makeRow("td", cells)));
}

function makeRow(tag, cells) {
  const row = document.createElement("tr");
  for (const cell of cells.filter((cell) => cell !== null)) {
    row.appendChild(document.createElement(tag)).textContent = cell;
  }
  return row;
}

// The strip

const strip = get("strip").querySelector("svg");
const svg = (name, attributes) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};
const HEIGHT = 100;

function drawStrip(counts) {
  const greatest = Math.max(...counts, ...(study.target || []));
  // What is there is seen, however small.
  const rise = (count) => (count > 0 ? Math.max(3, (HEIGHT * count) / greatest) : 0);
  const bar = (i, count, name) =>
    svg("rect", { x: i + 0.1, width: 0.8, y: HEIGHT - rise(count), height: rise(count), class: name });
  strip.setAttribute("viewBox", `0 0 ${n} ${HEIGHT}`);
  strip.replaceChildren(
    svg("rect", { x: 0, width: n, y: HEIGHT, height: 1, class: "base" }),
    svg("rect", { x: state.slice, width: 1, y: 0, height: HEIGHT, class: "now" }),
    ...counts.map((count, i) => bar(i, count, "prediction")),
    ...(study.target || []).map((count, i) => bar(i, count, "target")),
    svg("rect", { x: state.slice, width: 1, y: HEIGHT - 2, height: 4, class: "mark" }),
  );
  get("greatest").textContent = greatest > 0 ? `highest bar ${formatArea(greatest)}` : "";
}

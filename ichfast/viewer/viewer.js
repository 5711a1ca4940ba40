// The page: draws what voxels.js computes, and turns wheel, keys and drags into another slice, window
// or threshold.

const HU_PRESETS = [
  ["brain", 40, 80],
  ["subdural", 75, 215],
  ["stroke", 40, 40],
  ["bone", 600, 2800],
  ["CT-ICH", 40, 120],
];
const PREDICTION = [86, 196, 255];
const TARGET = "#f5b400";
const SCALE_BARS = [50, 20, 10, 5]; // mm

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
    throw new Error("this browser is too old (Chrome 80, Firefox 113 or Safari 16.4 will do)");
  }
  for (const i of orderOutwards(study.first, n)) await loadSlice(i);
  performance.mark("all slices");
}

function fail(error) {
  get("failure").textContent = `The slices cannot be shown: ${error.message}.`;
  get("failure").hidden = false;
}

// Numbers

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
  get("interval").textContent = own || !interval ? interval : "No interval but at the model's own.";
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
  const heads = ["slice", study.labels && "", unit, study.target && `target, ${unit}`];
  const number = (count) => (area ? formatTenths(count * area) : count);
  const rows = counts.map((count, i) => [
    i + 1,
    study.labels && study.labels[i],
    number(count),
    study.target && number(study.target[i]),
  ]);
  const table = get("areas").querySelector("table");
  table.replaceChildren(makeRow("th", heads), ...rows.map((cells) => makeRow("td", cells)));
}

function makeRow(tag, cells) {
  const row = document.createElement("tr");
  for (const cell of cells.filter((cell) => cell !== null)) {
    row.appendChild(document.createElement(tag)).textContent = cell;
  }
  return row;
}

// Pictures

const picture = get("picture").getContext("2d");
const layers = { image: makeLayer(), mask: makeLayer() };
let waiting = false;

function makeLayer() {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  return { canvas, context, data: context.createImageData(width, height) };
}

/** At the next frame, however often it is asked for until then. */
function draw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    drawSlice();
  });
}

function drawSlice() {
  const slice = ready[state.slice];
  if (!slice) {
    loadSlice(state.slice).then(draw, fail);
    return;
  }
  const place = placePicture();
  picture.clearRect(0, 0, picture.canvas.width, picture.canvas.height);
  fillImage(slice.hu);
  picture.imageSmoothingEnabled = true;
  picture.imageSmoothingQuality = "high";
  picture.drawImage(layers.image.canvas, place.x, place.y, place.width, place.height);
  fillMask(slice.probability);
  picture.imageSmoothingEnabled = false;
  picture.drawImage(layers.mask.canvas, place.x, place.y, place.width, place.height);
  if (slice.target && get("show-target").checked) drawEdges(slice.target, 0, TARGET, place);
  const colour = `rgb(${PREDICTION})`;
  if (get("outline").checked) drawEdges(slice.probability, state.step, colour, place);
  drawBox(place);
  const [level, width] = state.window;
  get("window").textContent = `L ${level} W ${width}`;
  if (performance.getEntriesByName("first slice").length === 0) performance.mark("first slice");
}

/** The canvas as fine as the screen, and the picture's place in it. */
function placePicture() {
  const { canvas } = picture;
  const fine = devicePixelRatio;
  const stage = { width: get("stage").clientWidth, height: get("stage").clientHeight };
  const size = [Math.round(stage.width * fine), Math.round(stage.height * fine)];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  return fitPicture(canvas, height, width, spacing);
}

function fillImage(hu) {
  const { context, data } = layers.image;
  const shades = makeShades(...state.window);
  const pixels = new Uint32Array(data.data.buffer);
  for (let i = 0; i < hu.length; i++) pixels[i] = 0xff000000 | (shades[hu[i] - LOWEST_HU] * 0x010101);
  context.putImageData(data, 0, 0);
}

function fillMask(probability) {
  const { context, data } = layers.mask;
  const alpha = Math.round((255 * get("opacity").value) / 100);
  const [red, green, blue] = PREDICTION;
  const colour = ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  const pixels = new Uint32Array(data.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = probability[i] > state.step ? colour : 0;
  context.putImageData(data, 0, 0);
}

function drawEdges(values, step, colour, place) {
  const edges = traceEdges(values, step, height, width);
  const [sx, sy] = [place.width / width, place.height / height];
  picture.beginPath();
  for (let k = 0; k < edges.length; k += 4) {
    picture.moveTo(place.x + edges[k] * sx, place.y + edges[k + 1] * sy);
    picture.lineTo(place.x + edges[k + 2] * sx, place.y + edges[k + 3] * sy);
  }
  picture.lineCap = "square";
  strokeCased(colour, 1.4);
}

function strokeCased(colour, thickness) {
  const fine = devicePixelRatio;
  for (const [style, line] of [
    ["rgb(0 0 0 / 55%)", thickness + 1.6],
    [colour, thickness],
  ]) {
    picture.strokeStyle = style;
    picture.lineWidth = line * fine;
    picture.stroke();
  }
}

/** Corners around the largest component, in the slices that it is in. */
function drawBox(place) {
  if (!state.component || state.component.counts[state.slice] === 0) return;
  const [sx, sy] = [place.width / width, place.height / height];
  const margin = 8 * devicePixelRatio;
  const [left, top, right, bottom] = state.component.box;
  const xs = [place.x + left * sx - margin, place.x + right * sx + margin];
  const ys = [place.y + top * sy - margin, place.y + bottom * sy + margin];
  const arm = Math.min(12 * devicePixelRatio, (xs[1] - xs[0]) / 2, (ys[1] - ys[0]) / 2);
  picture.beginPath();
  for (const [x, inwards] of [[xs[0], arm], [xs[1], -arm]]) {
    for (const [y, down] of [[ys[0], arm], [ys[1], -arm]]) {
      picture.moveTo(x + inwards, y);
      picture.lineTo(x, y);
      picture.lineTo(x, y + down);
    }
  }
  strokeCased("#fff", 1.4);
}

function drawScale() {
  if (!spacing) return;
  const fine = devicePixelRatio;
  const place = placePicture();
  const perMm = place.width / fine / (width * spacing[1]);
  const length = SCALE_BARS.find((mm) => mm * perMm < place.width / fine / 3);
  get("scale").hidden = length === undefined;
  if (length === undefined) return;
  get("scale").firstElementChild.style.width = `${length * perMm}px`;
  get("scale").lastChild.textContent = `${length / 10} cm`;
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
  const greatest = Math.max(1, ...counts, ...(study.target || []));
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
  get("greatest").textContent = `up to ${formatArea(Math.max(...counts, ...(study.target || [])))}`;
}

// What the reader does

function showAt(slice) {
  const next = clamp(slice, 0, n - 1);
  if (next === state.slice) return;
  state.slice = next;
  showNumbers();
  get("probe").textContent = "";
  draw();
}

function setStep(step) {
  state.step = step;
  state.component = null;
  get("component").textContent = "";
  showNumbers();
  draw();
}

function setWindow(window) {
  state.window = window;
  const [level, width] = window;
  get("level").value = level;
  get("width").value = width;
  for (const button of get("presets").children) {
    button.setAttribute("aria-pressed", button.value === `${level}/${width}`);
  }
  draw();
}

async function showLargest() {
  get("component").textContent = "Searching…";
  const step = state.step;
  const every = await Promise.all(above.map((_, i) => loadSlice(i)));
  if (step !== state.step) return; // the threshold has moved since
  const planes = every.map((slice) => slice.probability);
  state.component = findLargest(planes, step, height, width, study.slabs);
  const text = describeComponent(state.component);
  if (state.component) showAt(findPeak(state.component.counts));
  get("component").textContent = text;
  draw();
}

function describeComponent(component) {
  if (!component) return "Nothing is above the threshold.";
  const { found, counts } = component;
  const first = counts.findIndex(Boolean) + 1;
  const last = counts.findLastIndex(Boolean) + 1;
  const where = first === last ? `slice ${first}` : `slices ${first} to ${last}`;
  const which = found === 1 ? "The only one" : `The largest of ${found}`;
  return `${which}: ${formatVolume(counts)}, ${where}.`;
}

function probe(event) {
  const slice = ready[state.slice];
  const box = get("stage").getBoundingClientRect();
  const stage = { width: get("stage").clientWidth, height: get("stage").clientHeight };
  const place = fitPicture(stage, height, width, spacing);
  const x = Math.floor(((event.clientX - box.left - place.x) / place.width) * width);
  const y = Math.floor(((event.clientY - box.top - place.y) / place.height) * height);
  const inside = slice && x >= 0 && y >= 0 && x < width && y < height;
  const i = y * width + x;
  get("probe").textContent = inside
    ? `${slice.hu[i]} HU, p ${(slice.probability[i] / 255).toFixed(2)}`
    : "";
}

function listenToStage(stage) {
  let wheel = 0;
  let drag = null; // where the pointer went down, and what it changes
  stage.addEventListener(
    "wheel",
    (event) => {
      if (event.ctrlKey) return; // the browser's own zoom
      event.preventDefault();
      const { slices, rest } = turnWheel(wheel, event.deltaY, event.deltaMode);
      wheel = rest;
      showAt(state.slice + slices);
    },
    { passive: false },
  );
  stage.addEventListener("contextmenu", (event) => event.preventDefault());
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    const windows = event.button === 2 || event.shiftKey;
    const { clientX: x, clientY: y } = event;
    drag = { x, y, windows, window: state.window, slice: state.slice };
  });
  stage.addEventListener("pointermove", (event) => {
    if (!drag) return probe(event);
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (drag.windows) setWindow(dragWindow(drag.window, dx, dy));
    else showAt(drag.slice - Math.round(dy / dragPace(stage)));
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => (drag = null));
  stage.addEventListener("pointerleave", () => (get("probe").textContent = ""));
}

/** Pixels of a drag for a slice: the whole stack is one stage high, but no slice less than 4. */
function dragPace(stage) {
  return Math.max(4, stage.clientHeight / n);
}

function listenToStrip(element) {
  const jump = (event) => {
    const box = strip.getBoundingClientRect();
    showAt(Math.floor(((event.clientX - box.left) / box.width) * n));
  };
  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    jump(event);
  });
  element.addEventListener("pointermove", (event) => {
    if (element.hasPointerCapture(event.pointerId)) jump(event);
  });
}

function listenToKeys(element) {
  element.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const next = moveByKey(event.key, state.slice, n);
    if (next === null) return;
    event.preventDefault();
    showAt(next);
  });
}

function listenToControls() {
  get("threshold").addEventListener("input", (event) => setStep(Number(event.target.value)));
  get("own").addEventListener("click", () => setStep(study.step));
  get("largest").addEventListener("click", () => showLargest().catch(fail));
  for (const id of ["opacity", "outline", "show-target"]) get(id).addEventListener("input", draw);
  for (const id of ["level", "width"]) {
    get(id).addEventListener("change", () => {
      const [level, width] = state.window;
      const typed = Number(get(id).value);
      if (get(id).value === "" || !Number.isFinite(typed)) return setWindow(state.window);
      setWindow(id === "level" ? [typed, width] : [level, Math.max(1, typed)]);
    });
  }
  get("areas").addEventListener("toggle", showNumbers);
}

function makePresets() {
  const [level, width] = study.window;
  const known = HU_PRESETS.some((preset) => preset[1] === level && preset[2] === width);
  const presets = known ? HU_PRESETS : [["model", level, width], ...HU_PRESETS];
  for (const [name, ...window] of presets) {
    const button = get("presets").appendChild(document.createElement("button"));
    button.type = "button";
    button.value = window.join("/");
    button.textContent = name;
    button.title = `level ${window[0]}, width ${window[1]}`;
    button.addEventListener("click", () => setWindow(window));
  }
}

/** Shows and hides what depends on what the study has. */
function fitStudy() {
  const sides = document.querySelectorAll(".side");
  for (const side of sides) side.hidden = !spacing; // no geometry, no sides
  for (const id of ["target-row", "target-key", "target-choice"]) get(id).hidden = !study.target;
  get("total-name").textContent = hasVolume ? "Volume" : "Pixels, all slices";
  get("total").hidden = get("largest").hidden = !study.oneScan;
  for (const id of ["stage", "strip"]) get(id).setAttribute("aria-valuemax", n);
}

fitStudy();
makePresets();
listenToStage(get("stage"));
listenToStrip(get("strip"));
for (const id of ["stage", "strip"]) listenToKeys(get(id));
listenToControls();
setWindow(study.window);
showNumbers();
new ResizeObserver(() => {
  drawScale();
  drawSlice();
}).observe(get("stage"));
get("stage").focus({ preventScroll: true });
loadAll().catch(fail);

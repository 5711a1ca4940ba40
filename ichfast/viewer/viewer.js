// What the reader does with wheel, keys, pointer and controls. Runs after voxels.js, study.js and
// picture.js, as one script with them.

const HU_PRESETS = [
  ["brain", 40, 80],
  ["subdural", 75, 215],
  ["stroke", 40, 40],
  ["bone", 600, 2800],
  ["CT-ICH", 40, 120],
];

function showAt(slice) {
  const next = clamp(slice, 0, n - 1);
  if (next === state.slice) return;
  state.slice = next;
  showNumbers();
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

/** HU and probability of the pixel under the pointer, also when the slice changes under it. */
function probe() {
  const slice = state.pointer && ready[state.slice];
  if (!slice) {
    get("probe").textContent = "";
    return;
  }
  const box = get("stage").getBoundingClientRect();
  const stage = { width: get("stage").clientWidth, height: get("stage").clientHeight };
  const place = fitPicture(stage, height, width, spacing);
  const x = Math.floor(((state.pointer.x - box.left - place.x) / place.width) * width);
  const y = Math.floor(((state.pointer.y - box.top - place.y) / place.height) * height);
  const inside = x >= 0 && y >= 0 && x < width && y < height;
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
    state.pointer = event.pointerType === "mouse" ? { x: event.clientX, y: event.clientY } : null;
    probe();
    if (!drag) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (drag.windows) setWindow(dragWindow(drag.window, dx, dy));
    else showAt(drag.slice - Math.round(dy / dragPace(stage)));
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => (drag = null));
  stage.addEventListener("pointerleave", () => {
    state.pointer = null;
    probe();
  });
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

// The slice on the canvas: greys, mask, outlines, and what belongs to them.

const PREDICTION = [86, 196, 255];
const TARGET = "#f5b400";
const STROKE = 1.4; // pixels of the screen
const SCALE_BARS = [50, 20, 10, 5]; // mm

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
  picture.clearRect(0, 0, picture.canvas.width, picture.canvas.height);
  if (!slice) {
    loadSlice(state.slice).then(draw, fail);
    return;
  }
  const place = placePicture();
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
  probe();
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
  strokeCased(colour);
}

/** The current path, on a darker and wider one. */
function strokeCased(colour) {
  for (const [style, line] of [
    ["rgb(0 0 0 / 55%)", STROKE + 1.6],
    [colour, STROKE],
  ]) {
    picture.strokeStyle = style;
    picture.lineWidth = line * devicePixelRatio;
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
  strokeCased("#fff");
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

// The init image, and the dialog with a brush for the part of it that is generated anew.

import { ApiError, base64, checkImageFile, imageUrl } from "./api.js";
import { $, openDialog, once } from "./dom.js";
import { setInitImage, state, subscribe } from "./session.js";

/** Length of the longer side of the canvas in pixels; the server stretches the mask to the size of the result. */
const SIDE = 512;
const TINT = "rgb(255 64 96)";

/** The image, how the server gets it, and the painted strokes: opaque where the image is generated anew. */
let picked = null;
let image = null;
let strokes = null;
let isPainted = false;
let last = null;
let cursor = null;

export function prepareMask() {
  const canvas = $("#mask-canvas");
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
    last = pointOf(event);
    cursor = null;
    paint(last, last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const points = event.getCoalescedEvents?.() ?? [];
    for (const one of points.length ? points : [event]) {
      const point = pointOf(one);
      paint(last, point);
      last = point;
    }
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => (last = null));
  canvas.addEventListener("keydown", paintByKey);
  canvas.addEventListener("blur", () => {
    cursor = null;
    draw();
  });
  $("#mask-clear").addEventListener("click", clear);
  $("#mask-brush").addEventListener("input", showValues);
  $("#mask-strength").addEventListener("input", showValues);
  $("#mask-form").addEventListener("submit", (event) => {
    event.preventDefault();
    once("init", $("#mask-save"), save);
  });
  $("#init-file").addEventListener("change", () => {
    const [chosen] = $("#init-file").files;
    if (chosen) once("mask", $("#init-choose"), () => openMask({ file: checkImageFile(chosen) }));
    $("#init-file").value = "";
  });
  $("#init-choose").addEventListener("click", () => $("#init-file").click());
  $("#init-edit").addEventListener("click", () => {
    const { image, mask, strength } = state.session.init_image;
    once("mask", $("#init-edit"), () => openMask({ hash: image, mask, strength }));
  });
  $("#init-remove").addEventListener("click", () => once("init", $("#init-remove"), () => setInitImage(null)));
  subscribe((kind) => {
    if (kind === "session" && state.session) showInitImage(state.session);
  });
}

function showInitImage(session) {
  const init = session.init_image;
  $("#init-image").hidden = !init;
  $("#init-none").hidden = Boolean(init);
  if (!init) return;
  const image = $("#init-thumbnail");
  const source = imageUrl(session.id, init.image);
  if (image.getAttribute("src") !== source) image.src = source;
  const part = init.mask ? "only the masked part is generated" : "the whole image is generated anew";
  $("#init-text").textContent = `Strength ${Math.round(100 * init.strength)} %, ${part}.`;
}

/** Opens the dialog with an image of the session (`hash`) or a `file`, and the mask and the strength so far. */
export async function openMask({ hash = null, file = null, mask = null, strength = 0.7 }) {
  const { id } = state.session;
  picked = { hash, file };
  image = await load(file ? URL.createObjectURL(file) : imageUrl(id, hash));
  const before = mask ? await load(imageUrl(id, mask)) : null;
  const canvas = $("#mask-canvas");
  const scale = SIDE / Math.max(image.naturalWidth, image.naturalHeight);
  canvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
  strokes = document.createElement("canvas");
  strokes.width = canvas.width;
  strokes.height = canvas.height;
  isPainted = false;
  cursor = null;
  if (before) paintMask(before);
  $("#mask-strength").value = strength;
  showValues();
  draw();
  openDialog($("#mask"));
}

async function load(source) {
  const loaded = new Image();
  loaded.src = source;
  try {
    await loaded.decode();
  } catch {
    const [expected, next] = ["a readable PNG, JPEG or WebP image", "Choose another image."];
    throw new ApiError({ message: "The image cannot be shown.", expected, next });
  } finally {
    if (source.startsWith("blob:")) URL.revokeObjectURL(source);
  }
  return loaded;
}

/** Makes the light parts of a mask strokes. */
function paintMask(mask) {
  const { width, height } = strokes;
  const context = strokes.getContext("2d", { willReadFrequently: true });
  context.drawImage(mask, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const isLight = pixels.data[at] >= 128;
    pixels.data.set([255, 255, 255, isLight ? 255 : 0], at);
    isPainted ||= isLight;
  }
  context.putImageData(pixels, 0, 0);
}

function pointOf(event) {
  const canvas = $("#mask-canvas");
  const { left, top, width, height } = canvas.getBoundingClientRect();
  return [((event.clientX - left) * canvas.width) / width, ((event.clientY - top) * canvas.height) / height];
}

const brush = () => (Number($("#mask-brush").value) / 100) * SIDE;

function paint([fromX, fromY], [toX, toY]) {
  const context = strokes.getContext("2d", { willReadFrequently: true });
  context.strokeStyle = "#fff";
  context.lineWidth = brush();
  context.lineCap = "round";
  context.lineJoin = "round";
  context.beginPath();
  context.moveTo(fromX, fromY);
  // A line without a length would have no dot in some browsers.
  context.lineTo(toX + 0.01, toY);
  context.stroke();
  isPainted = true;
  draw();
}

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Arrow keys move the brush, the space bar paints. */
function paintByKey(event) {
  const { width, height } = event.currentTarget;
  const move = MOVES[event.key];
  if (!move && event.key !== " ") return;
  event.preventDefault();
  cursor ??= [width / 2, height / 2];
  if (move) {
    const step = Math.max(4, brush() / 3);
    const within = (value, most) => Math.min(Math.max(value, 0), most);
    cursor = [within(cursor[0] + step * move[0], width), within(cursor[1] + step * move[1], height)];
    draw();
  } else {
    paint(cursor, cursor);
  }
}

function clear() {
  strokes?.getContext("2d").clearRect(0, 0, strokes.width, strokes.height);
  isPainted = false;
  draw();
}

function draw() {
  if (!image) return;
  const canvas = $("#mask-canvas");
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = Math.max(image.naturalWidth, image.naturalHeight) > 128;
  context.clearRect(0, 0, width, height);
  context.drawImage(image, 0, 0, width, height);
  const tinted = document.createElement("canvas");
  tinted.width = width;
  tinted.height = height;
  const tint = tinted.getContext("2d");
  tint.drawImage(strokes, 0, 0);
  tint.globalCompositeOperation = "source-in";
  tint.fillStyle = TINT;
  tint.fillRect(0, 0, width, height);
  context.globalAlpha = 0.6;
  context.drawImage(tinted, 0, 0);
  context.globalAlpha = 1;
  if (cursor) {
    context.beginPath();
    context.arc(cursor[0], cursor[1], brush() / 2, 0, 2 * Math.PI);
    context.lineWidth = 2;
    context.strokeStyle = "#000";
    context.stroke();
    context.lineWidth = 1;
    context.strokeStyle = "#fff";
    context.stroke();
  }
  $("#mask-text").textContent = isPainted
    ? "Only the painted part is generated anew; the rest stays as it is."
    : "Nothing is painted: the whole image is generated anew. Paint a part to keep the rest.";
}

function showValues() {
  $("#mask-brush-text").textContent = `${$("#mask-brush").value} %`;
  $("#mask-strength-text").textContent = `${Math.round(100 * Number($("#mask-strength").value))} %`;
}

/** Returns the mask as base64: white where the image is generated anew, black elsewhere. */
function maskData() {
  const mask = document.createElement("canvas");
  mask.width = strokes.width;
  mask.height = strokes.height;
  const context = mask.getContext("2d");
  context.fillStyle = "#000";
  context.fillRect(0, 0, mask.width, mask.height);
  context.drawImage(strokes, 0, 0);
  const url = mask.toDataURL("image/png");
  return url.slice(url.indexOf(",") + 1);
}

async function save() {
  const { hash, file } = picked;
  const source = file ? { data: await base64(file) } : { hash };
  const strength = Number($("#mask-strength").value);
  await setInitImage({ image: source, strength, mask: isPainted ? { data: maskData() } : null });
  $("#mask").close();
  $("#guide-init").open = true;
}

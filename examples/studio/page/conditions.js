// What the next round is made with, besides the votes: image prompts, prompts and settings.

import { ApiError, base64, checkImageFile, imageUrl } from "./api.js";
import { $, $$, ask, el, icon, once, showMessage } from "./dom.js";
import { aspectText, editConditions, editSettings, effectiveSettings, patch, state, subscribe } from "./session.js";

const NO_ADAPTER = "This model has no adapter for image prompts.";

let shown = "";
let newAspect = null;

export function prepareConditions() {
  const zone = $("#drop-zone");
  const file = $("#condition-file");
  file.addEventListener("change", () => {
    addFiles([...file.files]);
    file.value = "";
  });
  $("#condition-scale").addEventListener("input", showScale);
  for (const name of ["dragenter", "dragover"]) {
    zone.addEventListener(name, (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
  }
  zone.addEventListener("dragleave", (event) => {
    if (!zone.contains(event.relatedTarget)) zone.classList.remove("over");
  });
  zone.addEventListener("drop", drop);
  // A file that is dropped beside the zone must not replace the page.
  for (const name of ["dragover", "drop"]) {
    document.addEventListener(name, (event) => {
      if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
    });
  }
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (state.session && files.length && !$("dialog[open]")) addFiles(files);
  });
  subscribe((kind) => {
    if (kind === "model") showModel();
    if (kind !== "session") return;
    showConditions();
    showPrompts();
    if (state.session) showSettings();
  });
  prepareSettings();
}

const canUseImages = () => state.model.has_image_prompt || state.model.aspects.length > 0;

function showModel() {
  const { aspects } = state.model;
  newAspect = aspectSelect(aspects.includes("everything") ? "everything" : (namedAspects()[0] ?? null));
  newAspect.select.id = "condition-aspect";
  $("#condition-aspect-place").replaceChildren(newAspect.select);
  const usable = canUseImages();
  $("#drop-zone").classList.toggle("unusable", !usable);
  $("#condition-file").disabled = !usable;
  $("#conditions-unusable").hidden = usable;
  showScale();
  const option = (preset) => el("option", { value: preset.name }, preset.title || preset.name);
  const presets = state.model.presets.map(option);
  $("#preset").replaceChildren(...presets, el("option", { value: "", hidden: true }, "your own settings"));
}

function showScale() {
  $("#condition-scale-text").textContent = Number($("#condition-scale").value).toFixed(1);
}

/** Adds an image prompt with the values of the controls beside the drop zone. `image` is `{hash}` or `{data}`. */
export async function addCondition(image) {
  if (!canUseImages()) {
    showMessage(NO_ADAPTER, "Start fabric-studio with --adapter and its file.", "error");
    return;
  }
  const scale = Number($("#condition-scale").value);
  const added = { image, aspect: newAspect.value(), scale, away: $("#condition-away").checked };
  await editConditions((conditions) => [...conditions, added]);
  $("#guide-conditions").open = true;
}

function addFiles(files) {
  const zone = $("#drop-zone");
  once("drop", zone, async () => {
    for (const file of files) await addCondition({ data: await base64(checkImageFile(file)) });
  });
}

function drop(event) {
  event.preventDefault();
  $("#drop-zone").classList.remove("over");
  if (!state.session) return;
  const hash = event.dataTransfer.getData("text/x-studio-image");
  if (hash) once("drop", $("#drop-zone"), () => addCondition({ hash }));
  else if (event.dataTransfer.files.length) addFiles([...event.dataTransfer.files]);
  else showMessage("This is no image file.", "Drop a PNG, JPEG or WebP file, or an image of a round.", "error");
}

function showConditions() {
  const { session } = state;
  if (!session) {
    shown = "";
    return;
  }
  const key = JSON.stringify([session.id, session.conditions]);
  if (key === shown) return;
  shown = key;
  const active = document.activeElement;
  const place = active?.dataset?.control ? [active.closest("li")?.dataset.at, active.dataset.control] : null;
  $("#conditions").replaceChildren(...session.conditions.map(item));
  $("#conditions-count").textContent = session.conditions.length || "";
  if (place) $(`#conditions [data-at="${place[0]}"] [data-control="${place[1]}"]`)?.focus();
}

function item(condition, at) {
  const text = `image prompt ${at + 1}`;
  const save = (changes) => once(`condition ${at} ${JSON.stringify(changes)}`, null, async () => {
    try {
      await editConditions((all) => all.map((one, index) => (index === at ? { ...one, ...changes } : one)));
    } catch (error) {
      // The controls show the state of the session again.
      shown = "";
      showConditions();
      throw error;
    }
  });
  const aspect = aspectSelect(condition.aspect ?? null, () => save({ aspect: aspect.value() }));
  aspect.select.dataset.control = "aspect";
  aspect.select.setAttribute("aria-label", `Aspect of ${text}`);
  const output = el("output", {}, condition.scale.toFixed(1));
  const range = { type: "range", min: 0, max: Math.max(2, condition.scale), step: 0.1, value: condition.scale };
  const scale = el("input", { ...range, "aria-label": `Scale of ${text}`, data: { control: "scale" } });
  scale.addEventListener("input", () => (output.textContent = Number(scale.value).toFixed(1)));
  scale.addEventListener("change", () => save({ scale: Number(scale.value) }));
  const away = el("input", { type: "checkbox", checked: condition.away, data: { control: "away" } });
  away.addEventListener("change", () => save({ away: away.checked }));
  const names = { title: "Remove", "aria-label": `Remove ${text}` };
  const remove = el("button", { type: "button", class: "icon-button", ...names }, icon("close"));
  remove.addEventListener("click", () => once(`condition ${at}`, remove, () =>
    editConditions((all) => all.filter((_, index) => index !== at))));
  const [start, end] = condition.window ?? [0, 1];
  const isPart = start > 0 || end < 1;
  const part = `acts from ${Math.round(100 * start)} to ${Math.round(100 * end)} % of the run`;
  return el("li", { class: "condition", data: { at } },
    el("img", { src: imageUrl(state.session.id, condition.image), alt: text }),
    el("div", { class: "condition-controls" },
      aspect.select,
      el("label", { class: "range" }, scale, output),
      el("label", { class: "check" }, away, "lead away from it"),
      isPart ? el("p", { class: "note" }, part) : null),
    remove);
}

/** Aspects that need no words. */
const namedAspects = () => state.model.aspects.filter((kind) => !["object", "words"].includes(kind));

/** Value of the option of an aspect: its name, its JSON if it has words, or nothing for the whole image. */
const optionValue = (aspect) => (aspect?.object || aspect?.words ? JSON.stringify(aspect) : (aspect ?? ""));

/** Select with the aspects of the model; `value()` is the chosen one. Objects and other words are asked for. */
function aspectSelect(aspect, onChange = () => {}) {
  const { aspects } = state.model;
  const option = (value, text) => el("option", { value }, text);
  const select = el("select", {}, ...namedAspects().map((kind) => option(kind, kind)));
  if (aspects.includes("object")) select.append(option("object", "an object…"));
  if (aspects.includes("words")) select.append(option("words", "other words…"));
  const choose = (one) => {
    const value = optionValue(one);
    const isListed = $$("option", select).some((other) => other.value === value);
    if (!isListed) select.prepend(option(value, aspectText(one)));
    select.value = value;
    return value;
  };
  let chosen = choose(aspect);
  select.addEventListener("change", async () => {
    const kind = select.value;
    if (kind === "object" || kind === "words") {
      select.value = chosen;
      const label = kind === "object" ? "Name of the object, for example: star" : "Words, for example: its warm light";
      const words = await ask({ title: "Aspect of the image", value: "", label, confirm: "Use" });
      if (words === null) return;
      choose({ [kind]: words });
    }
    chosen = select.value;
    onChange();
  });
  return { select, value: () => (chosen.startsWith("{") ? JSON.parse(chosen) : chosen || null) };
}

// The prompts and the settings.

function prepareSettings() {
  for (const [selector, name] of [["#prompt", "prompt"], ["#session-negative", "negative_prompt"]]) {
    const field = $(selector);
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      field.blur();
    });
    field.addEventListener("change", () => once(`patch ${name} ${field.value}`, null, async () => {
      const text = field.value.trim();
      try {
        if (text || name !== "prompt") await patch({ [name]: text });
        else showMessage("The prompt is empty.", "The one before was kept.", "error");
      } finally {
        showPrompts();
      }
    }));
  }
  for (const field of $$("#settings [data-setting]")) {
    field.addEventListener("change", () => once(`setting ${field.id} ${field.value}`, null, () => saveSetting(field)));
  }
  $("#preset").addEventListener("change", () => once("preset", null, applyPreset));
  const reset = $("#settings-reset");
  reset.addEventListener("click", () => once("reset", reset, () => saveSettings(() => state.model.settings)));
}

function showPrompts() {
  const { session } = state;
  if (!session) return;
  setField($("#prompt"), session.prompt);
  setField($("#session-negative"), session.negative_prompt ?? "");
  $("#session-more").open ||= Boolean(session.negative_prompt);
}

/** Sets a field unless it is being edited. */
function setField(field, value) {
  if (document.activeElement === field && field.dataset.shown === String(value)) return;
  field.value = value;
  field.dataset.shown = String(value);
}

const follow = (settings, path) => path.split(".").reduce((value, key) => value?.[key], settings);

function showSettings() {
  const settings = effectiveSettings();
  $("#seed").textContent = state.session.seed;
  for (const field of $$("#settings [data-setting]")) {
    const value = follow(settings, field.dataset.setting);
    if (field.type === "checkbox") field.checked = Boolean(value);
    else setField(field, value ?? "");
  }
  const preset = state.model.presets.find((one) => isEqual(one.settings.fabric, settings.fabric));
  $("#preset").value = preset?.name ?? "";
  $("#preset-text").textContent = preset?.text ?? "The feedback settings are those of no preset.";
}

/** Whether two JSON values are equal, whatever the order of their keys. */
function isEqual(a, b) {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || !a || !b) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => key in b && isEqual(a[key], b[key]));
}

async function saveSetting(field) {
  const isCheckbox = field.type === "checkbox";
  const value = isCheckbox ? field.checked : Number(field.value);
  const isUsable = isCheckbox || (field.value.trim() !== "" && Number.isFinite(value));
  if (!isUsable) {
    const text = field.closest("label").textContent.trim();
    resetFields();
    throw new ApiError({ message: `${text}: expected a number.`, next: "The value before was kept." });
  }
  const path = field.dataset.setting.split(".");
  const last = path.pop();
  await saveSettings((settings) => {
    const holder = path.length ? follow(settings, path.join(".")) : settings;
    holder[last] = value;
    return settings;
  });
}

async function saveSettings(edit) {
  try {
    await editSettings(edit);
  } finally {
    resetFields();
  }
}

/** Shows the settings of the session, also in a field that is being edited. */
function resetFields() {
  for (const field of $$("#settings [data-setting]")) delete field.dataset.shown;
  if (state.session) showSettings();
}

/** Takes over from a preset what differs from the model's settings: its way of using feedback. */
async function applyPreset() {
  const preset = state.model.presets.find((one) => one.name === $("#preset").value);
  if (!preset) return;
  await saveSettings((settings) => {
    for (const [key, value] of Object.entries(preset.settings)) {
      if (key === "fabric" || !isEqual(value, state.model.settings[key])) settings[key] = value;
    }
    return settings;
  });
}

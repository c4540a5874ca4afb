// Elements, icons, messages, dialogs, and choices that the browser keeps.

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "selected", "draggable"]);

/** Creates an element. `data` are data attributes, `on` are listeners; other properties are attributes. */
export function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "data") Object.assign(element.dataset, value);
    else if (key === "on") Object.entries(value).forEach((listener) => element.addEventListener(...listener));
    else if (PROPERTIES.has(key)) element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
}

// Lines on a grid of 24 by 24.
const ICONS = {
  attention: "M4 4h16v16H4zM4 9.3h16M4 14.6h16M9.3 4v16M14.6 4v16",
  branch: "M7 4.5v15M7 16c0-5 10-2.5 10-9.5M13.5 10L17 6.5l3.5 3.5",
  close: "M6 6l12 12M18 6L6 18",
  compare: "M4 5h6.5v14H4zM13.5 5H20v14h-6.5z",
  delete: "M5 7h14M10 7V4.5h4V7M7 7l.8 12.5h8.4L17 7",
  dislike: "M6.5 6.5l11 11M17.5 6.5l-11 11",
  download: "M12 4v11M7.5 10.5L12 15l4.5-4.5M5 20h14",
  enlarge: "M9 4.5H4.5V9M15 4.5h4.5V9M9 19.5H4.5V15M15 19.5h4.5V15",
  gallery: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  image: "M4 5h16v14H4zM4.5 16.5L9 12l3.5 3.5 2.5-2.5 4.5 4.5M15 9h.01",
  keyboard: "M3 7h18v10H3zM7 10.5h.01M10.5 10.5h.01M14 10.5h.01M17.5 10.5h.01M8 14h8",
  like: "M12 19.5S4.5 15 4.5 9.6A3.9 3.9 0 0 1 12 8a3.9 3.9 0 0 1 7.5 1.6C19.5 15 12 19.5 12 19.5z",
  menu: "M4 7h16M4 12h16M4 17h16",
  next: "M5 12h14M13 6l6 6-6 6",
  pencil: "M14.5 5.5l4 4L9 19H5v-4z",
  plus: "M12 5v14M5 12h14",
  reason: "M4.5 5.5h15v10h-8L7 19.5v-4H4.5z",
  redo: "M15 7l5 5-5 5M20 12H9.5A5.5 5.5 0 0 0 4 17.5V18",
  sheet: "M6 3.5h12v17H6zM9 7.5h2.5V10H9zM13 7.5h2.5V10H13zM9 13h2.5v2.5H9zM13 13h2.5v2.5H13z",
  undo: "M9 7l-5 5 5 5M4 12h10.5a5.5 5.5 0 0 1 5.5 5.5V18",
  upload: "M12 15V4M7.5 8.5L12 4l4.5 4.5M5 20h14",
};

const SVG = "http://www.w3.org/2000/svg";

/** Creates an icon, which assistive technology ignores. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", `icon icon-${name}`);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** Replaces the place holders of icons in the document. */
export function fillIcons() {
  for (const place of $$("[data-icon]")) place.replaceWith(icon(place.dataset.icon));
}

/** Makes `nodes` the children of `parent`, and moves none that is in its place, so that none loses the focus. */
export function sync(parent, nodes) {
  const kept = new Set(nodes);
  for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
  nodes.forEach((node, at) => {
    if (parent.children[at] !== node) parent.insertBefore(node, parent.children[at] ?? null);
  });
}

/** Returns "1 image" or "4 images". */
export const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

/** Whether this click is the second one of a double click. */
export const isRepeated = (event) => event.detail > 1;

/** Keeps a choice in the browser. */
export function remember(key, value) {
  try {
    localStorage.setItem(`studio ${key}`, value);
  } catch {
    // Without storage, the choice lasts until the page is left.
  }
}

/** Returns a choice that the browser kept, or `null`. */
export function recall(key) {
  try {
    return localStorage.getItem(`studio ${key}`);
  } catch {
    return null;
  }
}

const running = new Set();

/**
 * Does the work of an action unless the same action is still at work, marks its button as busy meanwhile, and shows
 * its error as a message. Returns the result, or `undefined` after an error.
 */
export async function once(key, button, work) {
  if (running.has(key)) return undefined;
  running.add(key);
  button?.setAttribute("aria-busy", "true");
  try {
    return await work();
  } catch (error) {
    showError(error);
    return undefined;
  } finally {
    running.delete(key);
    button?.removeAttribute("aria-busy");
  }
}

let hiding = 0;

/** Shows a message, with the next step if there is one. */
export function showMessage(text, next = "", kind = "info") {
  const message = $("#message");
  // A modal dialog makes everything outside of it inert.
  const host = $$("dialog[open]").at(-1) ?? document.body;
  if (message.parentElement !== host) host.append(message);
  const properties = { type: "button", class: "icon-button", "aria-label": "Close the message" };
  const close = el("button", properties, icon("close"));
  close.addEventListener("click", hideMessage);
  const texts = el("div", {}, el("p", { class: "message-text" }, ...withCode(text)));
  if (next) texts.append(el("p", { class: "message-next" }, ...withCode(next)));
  message.dataset.kind = kind;
  message.replaceChildren(texts, close);
  hideLater(kind === "error" ? 20_000 : 6_000);
}

/** Splits a text so that what is between back quotes is shown as code. */
const withCode = (text) => text.split("`").map((part, at) => (at % 2 ? el("code", {}, part) : part));

function hideLater(delay) {
  clearTimeout(hiding);
  hiding = setTimeout(() => {
    const isRead = $("#message").matches(":hover, :focus-within");
    if (isRead) hideLater(2_000);
    else hideMessage();
  }, delay);
}

function hideMessage() {
  clearTimeout(hiding);
  $("#message").replaceChildren();
}

/** Makes a text a sentence: with a capital letter and a full stop. */
function sentence(text) {
  const capital = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?:]$/.test(capital) ? capital : `${capital}.`;
}

/** Shows an error: what failed, what was expected, and what to do. */
export function showError(error) {
  const { message, expected, got, next } = error;
  let text = message || "Something failed";
  if (expected && !text.includes(expected)) {
    text = `${text.replace(/\.$/, "")}: expected ${expected}${got ? `, got ${got}` : ""}`;
  }
  showMessage(sentence(text), next ? sentence(next) : "", "error");
}

/** Tells assistive technology about a change that is visible elsewhere. */
export function announce(text) {
  $("#announcer").textContent = text;
}

/** Makes the dialogs close by their buttons, and by a press outside of them. */
export function prepareDialogs() {
  for (const dialog of $$("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (event.target.closest("[data-close]")) dialog.close();
    });
    dialog.addEventListener("pointerdown", (event) => {
      if (event.target !== dialog) return;
      const { left, right, top, bottom } = dialog.getBoundingClientRect();
      const inside = event.clientX >= left && event.clientX <= right && event.clientY >= top && event.clientY <= bottom;
      if (!inside) dialog.close();
    });
    dialog.addEventListener("close", () => {
      const message = $("#message", dialog);
      if (message) document.body.append(message);
    });
  }
}

/** Opens a modal dialog. */
export function openDialog(dialog) {
  if (!dialog.open) dialog.showModal();
}

/**
 * Asks for a confirmation, or for a text if `value` is given. Returns `true`, the text, or `null` if the answer is no.
 */
export function ask({ title, text = "", value = null, label = "", confirm, danger = false }) {
  const dialog = $("#ask");
  const input = $("#ask-input");
  const yes = $("#ask-yes");
  $("#ask-title").textContent = title;
  $("#ask-text").textContent = text;
  $("#ask-label").hidden = value === null;
  $("#ask-label-text").textContent = label;
  input.value = value ?? "";
  yes.textContent = confirm;
  yes.classList.toggle("danger", danger);
  let answer = null;
  const submit = (event) => {
    event.preventDefault();
    answer = value === null ? true : input.value.trim();
    if (answer !== "") dialog.close();
    else input.focus();
  };
  $("#ask-form").addEventListener("submit", submit);
  openDialog(dialog);
  if (value === null) $("#ask-no").focus();
  else input.select();
  return new Promise((resolve) => {
    const closed = () => {
      $("#ask-form").removeEventListener("submit", submit);
      resolve(answer === "" ? null : answer);
    };
    dialog.addEventListener("close", closed, { once: true });
  });
}

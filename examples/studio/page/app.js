// Entry point: the views, the list of sessions and the gallery.

import { ApiError, api, get, imageUrl } from "./api.js";
import { prepareCompare } from "./compare.js";
import { prepareConditions } from "./conditions.js";
import { $, $$, announce, ask, count, el, fillIcons, icon, once, openDialog, prepareDialogs } from "./dom.js";
import { recall, remember, showError, showMessage } from "./dom.js";
import { prepareKeyboard } from "./keyboard.js";
import { prepareMask } from "./mask.js";
import { prepareReason } from "./reason.js";
import { imageCount, prepareRounds } from "./rounds.js";
import * as session from "./session.js";

const { state } = session;

fillIcons();
$(".skip").addEventListener("click", (event) => {
  // The fragment of the address holds the open session.
  event.preventDefault();
  $("#main").focus();
});
prepareDialogs();
prepareRounds();
prepareReason();
prepareConditions();
prepareMask();
prepareCompare();
prepareKeyboard();
prepareStart();
prepareSidebar();
prepareGallery();
session.subscribe((kind) => {
  if (kind === "model") showModel();
  if (kind === "session") showView();
  if (kind === "sessions") showSessions();
  if (kind === "session") markOpenSession();
});
boot();

/** Loads the model and the sessions, again and again until the server answers. */
async function boot() {
  try {
    await Promise.all([session.loadModel(), session.loadSessions()]);
  } catch (error) {
    showError(error);
    setTimeout(boot, 5_000);
    return;
  }
  window.addEventListener("hashchange", route);
  await route();
  document.addEventListener("visibilitychange", async () => {
    if (document.visibilityState !== "visible") return;
    // Another tab may have changed the session.
    await session.refresh().catch(leaveIfUnknown);
    await session.loadSessions().catch(showError);
  });
}

/** Image of the gallery whose session is being opened. */
let wantedImage = null;

async function route() {
  const [, id] = location.hash.match(/^#\/session\/([0-9a-f]{16})$/) ?? [];
  const isGallery = location.hash === "#/gallery";
  toggleMenu(false);
  $("#start-view").hidden = Boolean(id) || isGallery;
  $("#session-view").hidden = !id;
  $("#gallery").hidden = !isGallery;
  for (const link of $$("nav a")) markCurrent(link, link.getAttribute("href") === (location.hash || "#/"));
  if (id) {
    await session.openSession(id).catch(leaveIfUnknown);
    const card = wantedImage && $(`#rounds .card[data-image="${wantedImage}"]`);
    wantedImage = null;
    if (card) card.focus();
    else if (state.session?.id === id) showNewestRound();
    return;
  }
  session.closeSession();
  window.scrollTo({ top: 0, behavior: "instant" });
  if (isGallery) await once("gallery", null, showGallery);
  else $("#new-prompt").focus({ preventScroll: true });
}

/** Scrolls to the newest round, or to the top if there is but one. */
function showNewestRound() {
  const [, ...later] = $$("#rounds .round");
  if (later.length) later.at(-1).scrollIntoView({ block: "start", behavior: "instant" });
  else window.scrollTo({ top: 0, behavior: "instant" });
}

function markCurrent(link, isCurrent) {
  if (isCurrent) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

function leaveIfUnknown(error) {
  showError(error);
  if (error.status === 404) location.hash = "#/";
}

function showModel() {
  const { name, version, width, height, queue_limit: limit } = state.model;
  $("#model").textContent = `${name}, ${width} × ${height} pixels. Studio ${version}.`;
  $("#model").title = `The queue has room for ${count(limit, "round")}.`;
}

/** Shows the facts of the open session above and below its rounds. */
function showView() {
  const { session: open } = state;
  const view = $("#session-view");
  view.classList.toggle("loading", !open);
  view.inert = !open;
  if (!open) return;
  $("#title").textContent = open.title && open.title !== open.prompt ? open.title : "";
  $("#sheet").href = `/api/sessions/${open.id}/sheet`;
  $("#sheet").hidden = !open.rounds.length;
  $("#parent").hidden = !open.parent;
  if (!open.parent) return;
  $("#parent-link").href = `#/session/${open.parent.session}`;
  $("#parent-link").textContent = `round ${open.parent.round + 1} of another session`;
}

// The view in which a session starts.

function prepareStart() {
  $("#new").addEventListener("submit", (event) => {
    event.preventDefault();
    once("start", $("#start"), start);
  });
  for (const example of $$("#examples button")) {
    example.addEventListener("click", () => {
      $("#new-prompt").value = example.textContent;
      $("#start").focus();
    });
  }
}

async function start() {
  const prompt = $("#new-prompt").value.trim();
  if (!prompt) {
    $("#new-prompt").focus();
    showMessage("The prompt is empty.", "Describe the image, or choose one of the examples.", "error");
    return;
  }
  const request = { prompt };
  const negative = $("#negative-prompt").value.trim();
  const seed = $("#new-seed").value.trim();
  if (negative) request.negative_prompt = negative;
  if (seed) {
    if (!/^\d{1,15}$/.test(seed)) {
      throw new ApiError({ message: "The seed cannot be used.", expected: "a whole number from 0", got: seed });
    }
    request.seed = Number(seed);
  }
  await session.createSession(request);
  $("#new").reset();
  await session.startRound(imageCount());
}

// The list of sessions.

function prepareSidebar() {
  $("#menu").addEventListener("click", () => toggleMenu(!isMenuOpen()));
  $("#menu-close").addEventListener("click", () => toggleMenu(false));
  $("#scrim").addEventListener("click", () => toggleMenu(false));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && isMenuOpen() && !$("dialog[open]")) toggleMenu(false);
  });
  $("#import").addEventListener("click", () => $("#import-file").click());
  $("#import-file").addEventListener("change", () => {
    const [file] = $("#import-file").files;
    if (file) once("import", $("#import"), () => importSession(file));
    $("#import-file").value = "";
  });
  $("#show-keys").addEventListener("click", () => openDialog($("#keys")));
}

const isMenuOpen = () => document.body.classList.contains("menu-open");

function toggleMenu(isOpen) {
  const wasOpen = isMenuOpen();
  document.body.classList.toggle("menu-open", isOpen);
  $("#menu").setAttribute("aria-expanded", String(isOpen));
  if (isOpen) $("#menu-close").focus();
  else if (wasOpen) $("#menu").focus();
}

async function importSession(file) {
  if (file.size > 512e6) {
    const got = `${Math.round(file.size / 1e6)} MB`;
    const next = "Import a smaller session.";
    throw new ApiError({ message: `The file ${file.name} is too large.`, expected: "at most 512 MB", got, next });
  }
  session.adopt(await api("POST", "/api/import", file));
  showMessage("The session was imported.");
}

function showSessions() {
  const active = document.activeElement?.closest("#sessions li")?.dataset.session;
  const control = document.activeElement?.dataset?.control;
  $("#sessions").replaceChildren(...state.sessions.map(sessionItem));
  $("#sessions-empty").hidden = state.sessions.length > 0;
  if (active && control) $(`#sessions [data-session="${active}"] [data-control="${control}"]`)?.focus();
  markOpenSession();
}

/** Marks the open session in the list, and shows how many rounds and votes it has now. */
function markOpenSession() {
  const { session: open } = state;
  for (const item of $$("#sessions li")) {
    const isOpen = item.dataset.session === open?.id;
    item.classList.toggle("open", isOpen);
    markCurrent($(".session-link", item), isOpen);
    if (isOpen) $(".meta", item).textContent = sizeText(open.rounds.length, open.votes.length);
  }
}

const sizeText = (rounds, votes) => `${count(rounds, "round")}, ${count(votes, "vote")}`;

function sessionItem({ id, title, prompt, rounds, votes, cover, error }) {
  const name = title || prompt || "Untitled";
  const image = cover
    ? el("img", { src: imageUrl(id, cover), alt: "", loading: "lazy" })
    : el("span", { class: "no-cover" }, icon("image"));
  const texts = el("span", { class: "session-texts" },
    el("span", { class: "session-title" }, name),
    el("span", { class: "meta" }, error ? "cannot be read" : sizeText(rounds, votes)));
  const link = { class: "session-link", data: { control: "open" } };
  const tell = () => showError({ message: String(error), next: "Repair its folder, or delete it." });
  const main = error
    ? el("button", { ...link, type: "button", on: { click: tell } }, image, texts)
    : el("a", { ...link, href: `#/session/${id}` }, image, texts);
  const button = (control, label, work) => {
    const shape = icon(control === "rename" ? "pencil" : control);
    const names = { title: label, "aria-label": `${label}: ${name}` };
    const kind = { type: "button", class: `icon-button ${control}`, data: { control } };
    const element = el("button", { ...kind, ...names }, shape);
    element.addEventListener("click", () => once(`${control} ${id}`, element, work));
    return element;
  };
  const names = { title: "Export", "aria-label": `Export: ${name}` };
  const file = { href: `/api/sessions/${id}/export`, download: `${id}.zip` };
  const properties = { class: "icon-button export", data: { control: "export" } };
  const exported = el("a", { ...properties, ...file, ...names }, icon("download"));
  return el("li", { data: { session: id } }, main,
    el("span", { class: "session-actions" },
      error ? null : button("rename", "Rename", () => rename(id, name)),
      error ? null : exported,
      button("delete", "Delete", () => remove(id, name))));
}

async function rename(id, name) {
  const title = await ask({ title: "Rename the session", label: "Title", value: name, confirm: "Rename" });
  if (title === null) return;
  if (state.session?.id === id) await session.patch({ title });
  else await api("PATCH", `/api/sessions/${id}`, { title });
  await session.loadSessions();
}

async function remove(id, name) {
  const text = `“${name}” with its rounds, votes and images is deleted. This cannot be undone.`;
  if (!(await ask({ title: "Delete the session?", text, confirm: "Delete", danger: true }))) return;
  await api("DELETE", `/api/sessions/${id}`);
  if (state.session?.id === id) {
    session.closeSession();
    location.hash = "#/";
  }
  await session.loadSessions();
}

// The gallery.

/** Images of the gallery, as the server answered last. */
let gallery = [];

const FILTERS = {
  all: () => true,
  liked: ({ liked }) => liked,
  disliked: ({ disliked }) => disliked,
  unvoted: ({ liked, disliked }) => !liked && !disliked,
};

const short = (number) => number.toFixed(1).replace(/\.0$/, "");

function prepareGallery() {
  for (const choice of $$("#gallery-filter input")) {
    if (choice.value === recall("gallery-filter")) choice.checked = true;
    choice.addEventListener("change", () => {
      remember("gallery-filter", choice.value);
      announce(count(showImages(), "image"));
    });
  }
  $("#gallery-sort").addEventListener("change", () => once("gallery", null, showGallery));
}

async function showGallery() {
  gallery = (await get(`/api/gallery?sort=${$("#gallery-sort").value}`)).images;
  showImages();
}

/** Shows the images of the gallery that the filter selects, and returns their number. */
function showImages() {
  const items = gallery.filter(FILTERS[$("#gallery-filter :checked").value]).map(galleryItem);
  $("#gallery-images").replaceChildren(...items);
  $("#gallery-empty").hidden = gallery.length > 0;
  $("#gallery-none").hidden = !gallery.length || items.length > 0;
  return items.length;
}

function galleryItem({ session: id, round, image, rating, liked, disliked }) {
  const text = `Image of round ${round + 1}, rating ${short(rating)}`;
  const picture = el("img", { src: imageUrl(id, image), alt: text, loading: "lazy" });
  const kind = `${liked ? " liked" : ""}${disliked ? " disliked" : ""}`;
  const link = { class: `gallery-item${kind}`, href: `#/session/${id}`, title: `${text}. Open its session.` };
  const badge = el("span", { class: "rating" }, icon(rating > 0 ? "like" : "dislike"), short(Math.abs(rating)));
  const item = el("a", { ...link, data: { image } }, el("span", { class: "frame" }, picture), rating ? badge : null);
  item.addEventListener("click", () => (wantedImage = image));
  return item;
}

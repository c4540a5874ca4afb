// The rounds with their images, the round in progress, and the bar of actions below them.

import { imageUrl } from "./api.js";
import { openAttention } from "./attention.js";
import { addCondition } from "./conditions.js";
import { openCompare } from "./compare.js";
import { $, $$, count, el, icon, isRepeated, once, openDialog, recall, remember, sync } from "./dom.js";
import { openMask } from "./mask.js";
import { openReason } from "./reason.js";
import * as session from "./session.js";

const { state } = session;

/** Section of each round by its content, so that a change of votes creates no image anew. */
let sections = new Map();
let pending = null;

const PHASES = {
  conditioning: "Preparing image prompts",
  text: "Encoding the prompt",
  encoding: "Encoding reference images",
  denoising: "Denoising",
  decoding: "Decoding images",
};

/** Connects the bar of actions and shows the rounds after each change. */
export function prepareRounds() {
  const images = $("#image-count");
  images.addEventListener("change", () => {
    remember("images", images.value);
    showBar();
  });
  $("#next-round").addEventListener("click", (event) => {
    if (!isRepeated(event)) nextRound();
  });
  $("#cancel").addEventListener("click", () => once("cancel", $("#cancel"), session.cancelRound));
  $("#undo").addEventListener("click", () => undo());
  $("#redo").addEventListener("click", () => redo());
  session.subscribe((kind) => {
    if (kind === "model") showModel();
    if (kind === "session" || kind === "job") showRounds();
    if (kind === "selected") showSelected();
  });
}

/** Number of images that the next round will have. */
export const imageCount = () => Number($("#image-count").value);

export function nextRound() {
  if (!state.session || state.job) return;
  once("round", $("#next-round"), () => session.startRound(imageCount()));
}

export const undo = () => state.session?.can_undo && once("undo", $("#undo"), session.undo);
export const redo = () => state.session?.can_redo && once("redo", $("#redo"), session.redo);

/** Likes (1) or dislikes (-1) the image of a card. A second vote in the same direction takes it back. */
export function vote(card, direction) {
  const { image } = card.dataset;
  const button = $(direction > 0 ? ".like" : ".dislike", card);
  return once(`vote ${image} ${direction}`, button, () => session.toggleVote(image, direction));
}

/** The card of the selected image, or `null`. */
export function selectedCard() {
  const { round, position } = state.selected ?? {};
  return round === undefined ? null : $(`#rounds [data-round="${round}"] [data-position="${position}"]`);
}

function showModel() {
  const { width, height, max_images: most } = state.model;
  const root = document.documentElement;
  root.style.setProperty("--aspect", `${width} / ${height}`);
  // Small images are enlarged by whole pixels, large ones smoothly.
  root.classList.toggle("small-images", Math.max(width, height) <= 128);
  const images = $("#image-count");
  const before = Number(recall("images") ?? images.value) || 4;
  images.replaceChildren(...Array.from({ length: most }, (_, at) => el("option", { value: at + 1 }, String(at + 1))));
  images.value = Math.min(before, most);
  showBar();
}

function showRounds() {
  const kept = new Map();
  for (const round of state.session?.rounds ?? []) {
    const key = [state.session.id, round.index, ...round.seeds, ...round.images].join(" ");
    const section = sections.get(key) ?? roundSection(round);
    $(".round-prompt", section).hidden = promptText(round) === promptText(state.session);
    kept.set(key, section);
  }
  sections = kept;
  const nodes = [...sections.values()];
  const isNew = showPending();
  if (pending) nodes.push(pending);
  sync($("#rounds"), nodes);
  for (const card of $$("#rounds .card[data-image]")) showVotes(card);
  $("#rounds-empty").hidden = nodes.length > 0;
  $("#hint").hidden = !state.session?.rounds.length || state.session.votes.length > 0;
  showSelected();
  showBar();
  if (isNew) pending.scrollIntoView({ block: "start" });
}

/** Shows the round in progress; returns whether it is a new one. */
function showPending() {
  const { job } = state;
  if (!job || state.session?.rounds.some((round) => round.index === job.round)) {
    pending = null;
    return false;
  }
  const isNew = pending?.dataset.job !== job.id;
  if (isNew) pending = pendingSection(job);
  $$(".card", pending).forEach((card, at) => {
    const url = job.previews[at];
    if (url && card.dataset.preview !== url) showPreview(card, url);
    card.classList.toggle("decoded", Boolean(job.decoded[at]));
  });
  return isNew;
}

function pendingSection(job) {
  const index = state.session.rounds.length;
  const name = `Round ${index + 1}`;
  const cards = Array.from({ length: job.images }, (_, at) => {
    const image = el("img", { alt: `Image ${at + 1} of round ${index + 1}, in progress`, hidden: true });
    return el("figure", { class: "card pending" }, el("div", { class: "frame" }, image));
  });
  const properties = { class: "round in-progress", "aria-label": name, "aria-busy": "true" };
  return el("section", { ...properties, data: { round: index, job: job.id } },
    el("header", { class: "round-header" }, el("h2", {}, name), el("p", { class: "meta" }, "in progress")),
    el("div", { class: `cards of-${job.images}` }, ...cards));
}

/** Shows a preview once it is loaded, so that the one before stays until then. */
function showPreview(card, url) {
  card.dataset.preview = url;
  const loader = new Image();
  loader.addEventListener("load", () => {
    if (card.dataset.preview !== url) return;
    const image = $("img", card);
    image.src = url;
    image.hidden = false;
  });
  loader.src = url;
}

function roundSection(round) {
  const action = (name, label, title, work) => {
    const names = { title, "aria-label": `${title}: round ${round.index + 1}` };
    const button = el("button", { type: "button", class: `${name} quiet`, ...names }, icon(name), label);
    button.addEventListener("click", (event) => {
      if (!isRepeated(event)) once(`${name} ${round.index}`, button, work);
    });
    return button;
  };
  const cards = round.images.map((_, position) => card(round, position));
  const notes = (round.notes ?? []).map((note) => el("li", {}, String(note)));
  const facts = [count(round.images.length, "image")];
  if (round.settings?.steps) facts.push(count(round.settings.steps, "step"));
  if (round.seconds) facts.push(`${round.seconds.toFixed(1)} s`);
  return el("section", { class: "round", data: { round: round.index }, "aria-label": `Round ${round.index + 1}` },
    el("header", { class: "round-header" },
      el("h2", {}, `Round ${round.index + 1}`),
      el("p", { class: "meta" }, facts.join(" · ")),
      madeWith(round),
      el("div", { class: "round-actions" },
        action("compare", "Compare", "Compare with the same round without votes", () => openCompare(round)),
        action("attention", "Attention", "Attention to the references, and the time of each step", () =>
          openAttention(round)),
        action("branch", "Branch", "Branch from here: start another session", () => session.branch(round.index)))),
    el("p", { class: "round-prompt" }, promptText(round)),
    el("div", { class: `cards of-${cards.length}` }, ...cards),
    notes.length ? el("ul", { class: "notes" }, ...notes) : null);
}

const promptText = ({ prompt, negative_prompt: negative }) => (negative ? `${prompt}, without ${negative}` : prompt);

/** Shows the images that steered a round. */
function madeWith({ made_with: { liked = [], disliked = [], conditions = [] } = {} }) {
  const thumbnail = (hash, kind) =>
    el("img", { class: `thumbnail ${kind}`, src: imageUrl(state.session.id, hash), alt: kind, title: kind });
  const images = [
    ...liked.map((hash) => thumbnail(hash, "liked")),
    ...disliked.map((hash) => thumbnail(hash, "disliked")),
    ...conditions.map((condition) => thumbnail(condition.image, "image prompt")),
  ];
  if (!images.length) return null;
  const more = images.length > 8 ? `and ${images.length - 8} more` : null;
  return el("div", { class: "made-with" }, "made with", ...images.slice(0, 8), more);
}

function card(round, position) {
  const hash = round.images[position];
  const name = `image ${position + 1} of round ${round.index + 1}`;
  const button = (kind, label, title, work) => {
    const texts = el("span", { class: "label", "aria-hidden": "true" }, label);
    const properties = { type: "button", class: kind, title, "aria-label": `${label}: ${name}` };
    const element = el("button", properties, icon(kind.split(" ")[0]), texts);
    element.addEventListener("click", (event) => {
      if (!isRepeated(event)) work(element);
    });
    return element;
  };
  const image = el("img", { src: imageUrl(state.session.id, hash), alt: name, decoding: "async" });
  const enlarge = button("enlarge", "Enlarge", "Enlarge", () => openZoom(round, position));
  const number = el("span", { class: "number", "aria-hidden": "true" }, String(position + 1));
  const figure = el("figure", { class: "card", tabindex: "-1", data: { image: hash, position } },
    el("div", { class: "frame" }, image, number, enlarge),
    el("div", { class: "actions" },
      button("like", "Like", "Like: the next round moves towards this image", () => vote(figure, 1)),
      button("dislike", "Dislike", "Dislike: the next round moves away from this image", () => vote(figure, -1)),
      button("reason", "Reason", "Say which aspect of the image the vote is about", () => openReason(hash, name)),
      el("span", { class: "more-actions" },
        button("image use-image", "Use as image prompt", "Use this image as an image prompt", (element) =>
          once(`condition ${hash}`, element, () => addCondition({ hash }))),
        button("pencil use-init", "Use as init image", "Repaint this image, as a whole or in part", (element) =>
          once("mask", element, () => openMask({ hash }))))),
    el("ul", { class: "votes" }));
  image.addEventListener("dragstart", (event) => event.dataTransfer.setData("text/x-studio-image", hash));
  image.addEventListener("dblclick", () => openZoom(round, position));
  image.addEventListener("click", () => figure.focus({ preventScroll: true }));
  figure.addEventListener("focusin", () => session.select({ round: round.index, position }));
  return figure;
}

function showVotes(card) {
  const index = Number(card.closest(".round").dataset.round);
  const round = state.session.rounds.find((one) => one.index === index);
  const hash = card.dataset.image;
  const votes = session.votesOn(hash);
  const key = JSON.stringify(votes);
  if (card.dataset.votes === key) return;
  card.dataset.votes = key;
  const text = session.imageText(round, Number(card.dataset.position));
  card.setAttribute("aria-label", text);
  $("img", card).alt = text;
  for (const [kind, direction] of [["like", 1], ["dislike", -1]]) {
    const isCast = votes.some((vote) => Math.sign(vote.strength) === direction);
    card.classList.toggle(`${kind}d`, isCast);
    $(`.${kind}`, card).setAttribute("aria-pressed", String(isCast));
  }
  const reasons = votes.filter((vote) => vote.reason || Math.abs(vote.strength) !== 1);
  $(".votes", card).replaceChildren(...reasons.map((vote) => voteChip(hash, vote)));
}

/** Shows a vote with a reason or with a strength below 1, with a button that takes it back. */
function voteChip(hash, vote) {
  const text = session.voteText(vote);
  const strength = Math.abs(vote.strength);
  const properties = { type: "button", class: "chip-remove", "aria-label": `Take back: ${text}` };
  const remove = el("button", properties, icon("close"));
  remove.addEventListener("click", () => once(`remove ${hash} ${text}`, remove, () =>
    (vote.reason ? session.castVote(hash, 0, vote.reason) : session.takeBackVotes(hash))));
  return el("li", { class: `chip ${vote.strength > 0 ? "liked" : "disliked"}` },
    strength === 1 ? text : `${text}, ${Math.round(100 * strength)} %`, remove);
}

function showSelected() {
  const selected = selectedCard();
  for (const card of $$("#rounds .card.selected")) if (card !== selected) card.classList.remove("selected");
  selected?.classList.add("selected");
}

function showBar() {
  const { job, session: open } = state;
  const images = count(imageCount(), "image");
  $("#next-round-label").textContent = `${open?.rounds.length ? "Next" : "First"} round: ${images}`;
  const [next, cancel] = [$("#next-round"), $("#cancel")];
  const hadFocus = document.activeElement === (job ? next : cancel);
  next.hidden = next.disabled = Boolean(job);
  cancel.hidden = !job;
  if (hadFocus) (job ? cancel : next).focus({ preventScroll: true });
  $("#image-count-label").hidden = Boolean(job);
  $("#undo").disabled = !open?.can_undo;
  $("#redo").disabled = !open?.can_redo;
  $("#progress").hidden = !job;
  document.title = title();
  if (!job) return;
  const bar = $("#progress-bar");
  const text = progressText(job);
  $("#progress-text").textContent = text;
  if (job.place > 0 || !job.steps) bar.removeAttribute("value");
  else bar.value = job.step / job.steps;
  bar.setAttribute("aria-valuetext", text);
}

function progressText(job) {
  if (!job.isConnected) return "Connection lost, trying again";
  if (job.place > 0) return `Waiting, place ${job.place} in the queue`;
  const phase = String(job.phase ?? "").toLowerCase();
  if (job.steps && job.step > 0 && phase !== "decoding") return `Step ${job.step} of ${job.steps}`;
  return PHASES[phase] ?? "Starting";
}

function title() {
  const { job, session: open } = state;
  const name = open ? open.title || open.prompt : "";
  const parts = [name && name.slice(0, 60), "Fabric studio"];
  if (job) parts.unshift(job.steps && !job.place ? `${Math.round((100 * job.step) / job.steps)} %` : "waiting");
  return parts.filter(Boolean).join(" · ");
}

function openZoom(round, position) {
  const image = $("#zoom-image");
  image.src = imageUrl(state.session.id, round.images[position]);
  image.alt = session.imageText(round, position);
  const seed = round.seeds[position];
  $("#zoom-text").textContent = `${image.alt}${seed === undefined ? "" : `. Seed ${seed}`}`;
  openDialog($("#zoom"));
}

// The dialog for a vote with a reason.

import { $, $$, el, once, openDialog, showMessage } from "./dom.js";
import { aspectText, castVote, state, votesOn } from "./session.js";

const HELP = {
  everything: "everything in the image",
  style: "how it is drawn",
  colour: "its colours",
  pose: "the pose of a person",
  composition: "where things are and how large",
  face: "the identity of a person",
  foreground: "what is in front",
  background: "what is behind",
  object: "the thing in it; name it below if you like",
};

let image = "";
let aspect = null;
let direction = 1;

export function prepareReason() {
  const words = $("#reason-words");
  words.addEventListener("input", () => {
    const text = words.value.trim();
    if (aspect?.object) aspect = { object: text || "object" };
    else aspect = text ? { words: text } : null;
    showChosen();
  });
  $("#reason-strength").addEventListener("input", showChosen);
  $("#reason-direction").addEventListener("click", () => {
    direction = -direction;
    showChosen();
  });
  $("#reason-form").addEventListener("submit", (event) => {
    event.preventDefault();
    once("reason", $("#reason-save"), save);
  });
}

/** Opens the dialog for an image, which `name` names for readers. */
export function openReason(hash, name) {
  const { aspects } = state.model;
  if (!aspects.length) {
    const next = "Start fabric-studio with --adapter and its file.";
    showMessage("Votes with a reason need an Instruct adapter.", next, "error");
    return;
  }
  image = hash;
  aspect = null;
  const votes = votesOn(hash);
  direction = votes.at(-1)?.strength < 0 ? -1 : 1;
  $("#reason-image").src = $(`.card[data-image="${hash}"] img`)?.src ?? "";
  $("#reason-image").alt = name;
  $("#reason-words").value = "";
  $("#reason-strength").value = 1;
  const named = aspects.filter((kind) => kind !== "words");
  $("#reason-aspects").replaceChildren(...named.map(chip));
  showChosen();
  openDialog($("#reason"));
}

function chip(kind) {
  const properties = { type: "button", class: "choice", title: HELP[kind] ?? "", data: { aspect: kind } };
  const button = el("button", properties, kind);
  button.addEventListener("click", () => {
    const words = $("#reason-words");
    if (kind === "object") {
      aspect = { object: words.value.trim() || "object" };
    } else {
      aspect = kind;
      words.value = "";
    }
    showEarlierVote();
    showChosen();
  });
  return button;
}

/** Starts from the vote with the same reason, which the new one will replace. */
function showEarlierVote() {
  const vote = votesOn(image).find((one) => JSON.stringify(one.reason) === JSON.stringify(aspect));
  if (!vote) return;
  direction = Math.sign(vote.strength);
  $("#reason-strength").value = Math.abs(vote.strength);
}

function showChosen() {
  const chosen = aspect?.object ? "object" : aspect;
  for (const button of $$("#reason-aspects button")) {
    button.setAttribute("aria-pressed", String(button.dataset.aspect === chosen));
  }
  const isDislike = direction < 0;
  const toggle = $("#reason-direction");
  toggle.setAttribute("aria-checked", String(isDislike));
  toggle.dataset.direction = isDislike ? "dislike" : "like";
  const strength = Number($("#reason-strength").value);
  $("#reason-strength-text").textContent = `${Math.round(100 * strength)} %`;
  $("#reason-summary").textContent = aspect === null ? "Choose an aspect, or write it in your own words." : summary();
}

function summary() {
  const text = aspectText(aspect);
  const noun = text === "everything" || /^(its|the|a|an) /i.test(text) ? text : `its ${text}`;
  return `The next round moves ${direction > 0 ? "towards" : "away from"} this image, for ${noun}.`;
}

async function save() {
  if (aspect === null) {
    $("#reason-words").focus();
    showMessage("The reason is missing.", "Choose an aspect, or write a few words.", "error");
    return;
  }
  await castVote(image, direction * Number($("#reason-strength").value), aspect);
  $("#reason").close();
}

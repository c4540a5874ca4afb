// Keys of the page. None acts while something is typed or a dialog is open.

import { $, $$, openDialog } from "./dom.js";
import { openReason } from "./reason.js";
import { nextRound, redo, selectedCard, undo, vote } from "./rounds.js";
import { select, state } from "./session.js";

export function prepareKeyboard() {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.repeat || $("dialog[open]")) return;
    if (event.target.closest?.('input:not([type="checkbox"]), textarea, select')) return;
    if (event.key === "?") {
      openDialog($("#keys"));
      return;
    }
    if (state.session && act(event)) event.preventDefault();
  });
}

/** Does what a key stands for; returns whether it stands for anything. */
function act(event) {
  const { key } = event;
  if (/^[1-8]$/.test(key)) return selectCard(Number(key) - 1);
  if (key === "ArrowUp" || key === "ArrowDown") return voteByKey(key === "ArrowUp" ? 1 : -1);
  if (key === "ArrowLeft" || key === "ArrowRight") return moveSelection(key === "ArrowRight" ? 1 : -1);
  if (key === "Enter") {
    // Buttons and links have the key for themselves.
    if (event.target.closest?.("button, a, summary")) return false;
    nextRound();
    return true;
  }
  if (key === "Escape") {
    select(null);
    document.activeElement?.blur();
    return true;
  }
  if (key.toLowerCase() === "z") {
    if (event.shiftKey) redo();
    else undo();
    return true;
  }
  if (key.toLowerCase() === "r") {
    const card = selectedCard();
    if (card) openReason(card.dataset.image, card.getAttribute("aria-label"));
    return Boolean(card);
  }
  return false;
}

/** Selects an image of the round with the selected one, else of the newest round. */
function selectCard(position) {
  const section = selectedCard()?.closest(".round") ?? $$("#rounds .round:not(.in-progress)").at(-1);
  const card = section && $(`[data-position="${position}"]`, section);
  card?.focus();
  card?.scrollIntoView({ block: "nearest" });
  return Boolean(card);
}

function moveSelection(by) {
  const card = selectedCard();
  const cards = $$("#rounds .card[data-image]");
  const next = card && cards[cards.indexOf(card) + by];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
  return Boolean(card);
}

/** Votes on the selected image. A key never takes a vote back, so that pressing it again changes nothing. */
function voteByKey(direction) {
  const card = selectedCard();
  if (!card) return false;
  const isCast = $(direction > 0 ? ".like" : ".dislike", card).getAttribute("aria-pressed") === "true";
  if (!isCast) vote(card, direction);
  return true;
}

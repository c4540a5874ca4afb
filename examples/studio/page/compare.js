// The dialog that shows a round beside the same round without its votes.

import { api, get, hasEnded, imageUrl, jobImageUrl, previewUrl, watchJob } from "./api.js";
import { $, $$, el, openDialog, showError, showMessage } from "./dom.js";
import { state } from "./session.js";

/** Finished comparisons: the job of a round. */
const results = new Map();

/** The comparison in the dialog: its job and a function that stops listening to it. */
let comparison = null;

export function prepareCompare() {
  $("#compare").addEventListener("close", () => {
    // Nobody waits for the images any more.
    if (comparison && !comparison.hasEnded) api("DELETE", `/api/jobs/${comparison.id}`).catch(showError);
    comparison?.stop();
    comparison = null;
  });
}

/** Shows a round beside the images that the same prompt, seeds and settings give without votes. */
export async function openCompare(round) {
  const { id } = state.session;
  const key = `${id} ${round.index} ${round.images.join(" ")}`;
  const before = await finished(results.get(key));
  const job = before ?? (await api("POST", `/api/sessions/${id}/compare`, { round: round.index }));
  $("#compare-title").textContent = `Round ${round.index + 1} with and without votes`;
  $("#compare-with").replaceChildren(...round.images.map((hash, at) => {
    const seed = round.seeds[at] === undefined ? "" : `, seed ${round.seeds[at]}`;
    return figure(`Image ${at + 1} with votes${seed}`, imageUrl(id, hash));
  }));
  $("#compare-without").replaceChildren(...round.images.map((_, at) => figure(`Image ${at + 1} without votes`)));
  $("#compare").style.setProperty("--columns", Math.min(round.images.length, 4));
  comparison?.stop();
  comparison = { id: job.id, hasEnded: hasEnded(job), stop: () => {} };
  openDialog($("#compare"));
  if (job.state === "done") showResult(job.id);
  else follow(job, key);
}

/** Returns the job if the server still has its images. */
async function finished(id) {
  const job = id ? await get(`/api/jobs/${id}`).catch(() => null) : null;
  return job?.state === "done" ? job : null;
}

function figure(text, source) {
  const image = el("img", { alt: text, hidden: !source, src: source });
  return el("figure", { class: source ? "frame" : "frame pending", title: text }, image);
}

function setImage(at, source, isLast) {
  const frame = $$("#compare-without .frame")[at];
  if (!frame) return;
  const { id } = comparison;
  const loader = new Image();
  loader.addEventListener("load", () => {
    if (comparison?.id !== id || frame.dataset.last === "true") return;
    if (isLast) {
      frame.dataset.last = "true";
      frame.classList.remove("pending");
    }
    const image = $("img", frame);
    image.src = source;
    image.hidden = false;
  });
  loader.src = source;
}

function showResult(id) {
  $$("#compare-without .frame").forEach((_, at) => setImage(at, jobImageUrl(id, at), true));
  $("#compare-text").textContent = "Both rows have the same prompt, seeds and settings. Only the votes differ.";
}

function follow(job, key) {
  const text = $("#compare-text");
  const generating = "Generating the round without votes";
  text.textContent = job.place > 0 ? `Waiting, place ${job.place} in the queue` : generating;
  comparison.stop = watchJob(job.id, (name, data) => {
    if (comparison?.id !== job.id) return;
    if (name === "place" && data.place > 0) text.textContent = `Waiting, place ${data.place} in the queue`;
    else if (name === "step") text.textContent = `${generating}: step ${data.step} of ${data.steps}`;
    else if (name === "reconnecting") text.textContent = "Connection lost, trying again";
    else if (name === "preview") setImage(data.image, previewUrl(job.id, data.image, data.step), false);
    else if (name === "image") setImage(data.image, jobImageUrl(job.id, data.image), true);
    else if (["done", "failed", "cancelled", "lost"].includes(name)) {
      comparison.hasEnded = true;
      if (name === "done") {
        results.set(key, job.id);
        showResult(job.id);
        return;
      }
      text.textContent = "There is no comparison.";
      if (name === "failed") showError(typeof data.error === "object" ? (data.error ?? {}) : { message: data.error });
      else showMessage("The comparison was cancelled.", "Open it again.");
    }
  });
}

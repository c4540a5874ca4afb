// State of the page, and the actions that change the open session.
//
// The state of a session is always one that the server answered, so several tabs can have the same session open.

import { api, get, hasEnded, imageUrl, jobImageUrl, previewUrl, watchJob } from "./api.js";
import { announce, count, showError, showMessage } from "./dom.js";

/**
 * `session`: the open session, or `null`. `job`: the round that is being generated for it, or `null`.
 * `selected`: the round and the position of the selected image, or `null`.
 */
export const state = { model: null, sessions: [], session: null, job: null, selected: null };

const subscribers = [];

/** Calls `listener(kind)` after each change; kinds are "model", "sessions", "session", "job" and "selected". */
export function subscribe(listener) {
  subscribers.push(listener);
}

export function changed(kind) {
  for (const listener of subscribers) listener(kind);
}

// Requests about sessions are sent one after another, so that the last answer is the newest state.
let queue = Promise.resolve();

function inOrder(work) {
  const result = queue.then(work);
  queue = result.catch(() => {});
  return result;
}

/**
 * Sends a change of the open session, and shows the session that the server answers. A body that is a function is
 * called when all earlier changes were answered.
 */
async function change(method, path, body) {
  const { id } = state.session;
  return inOrder(async () => {
    const isLate = typeof body === "function";
    if (isLate && state.session?.id !== id) return null;
    const session = await api(method, `/api/sessions/${id}${path}`, isLate ? body() : body);
    show(session);
    return session;
  });
}

function show(session) {
  if (!session || state.session?.id !== session.id) return;
  state.session = session;
  const { selected } = state;
  if (selected && !session.rounds[selected.round]?.images[selected.position]) state.selected = null;
  changed("session");
  followJobs().catch(showError);
}

/** Settings of the next round: those of the session, or the model's. */
export const effectiveSettings = () => state.session?.settings ?? state.model?.settings ?? null;

export const loadModel = async () => {
  state.model = await get("/api/model");
  changed("model");
};

export const loadSessions = async () => {
  state.sessions = (await get("/api/sessions")).sessions;
  changed("sessions");
};

let wanted = null;

/** Opens a session. */
export async function openSession(id) {
  wanted = id;
  if (state.session?.id !== id) closeSession(id);
  const session = await inOrder(() => get(`/api/sessions/${id}`));
  if (wanted !== id) return;
  state.session ??= session;
  show(session);
}

/** Closes the open session. Its jobs go on. */
export function closeSession(next = null) {
  wanted = next;
  stopWatching();
  seen.clear();
  Object.assign(state, { session: null, job: null, selected: null });
  changed("session");
  changed("job");
}

/** Asks the server for the open session, which another tab may have changed. */
export async function refresh() {
  if (state.session) await change("GET", "");
}

/** Creates a session and opens it. */
export async function createSession(request) {
  const session = await api("POST", "/api/sessions", request);
  adopt(session);
  return session;
}

/** Opens a session that the server just created. */
export function adopt(session) {
  closeSession(session.id);
  state.session = session;
  location.hash = `#/session/${session.id}`;
  show(session);
  loadSessions().catch(showError);
}

export const patch = (changes) => change("PATCH", "", changes);

/** Changes the settings. `edit` gets a copy of the current ones and returns the new ones. */
export const editSettings = (edit) =>
  change("PATCH", "", () => ({ settings: edit(structuredClone(effectiveSettings())) }));

export const undo = () => change("POST", "/undo");
export const redo = () => change("POST", "/redo");
export const castVote = (image, strength, reason = null) =>
  change("POST", "/votes", reason === null ? { image, strength } : { image, strength, reason });
export const takeBackVotes = (image) => change("DELETE", `/votes/${image}`);

/** Changes the list of image prompts. `edit` gets the current one, with images as `{hash}`, and returns the new one. */
export const editConditions = (edit) =>
  change("PUT", "/conditions", () => {
    const current = state.session.conditions.map((condition) => ({ ...condition, image: { hash: condition.image } }));
    // An aspect that is null is left out.
    return { conditions: edit(current).map(({ aspect, ...rest }) => (aspect ? { ...rest, aspect } : rest)) };
  });

export const setInitImage = (initImage) => change("PUT", "/init_image", { init_image: initImage });

/** Creates a session with the history up to a round, and opens it. */
export async function branch(round) {
  const { id } = state.session;
  const session = await inOrder(() => api("POST", `/api/sessions/${id}/branch`, { round }));
  adopt(session);
  showMessage(`This is a new session with the first ${count(round + 1, "round")}.`, "The other session is unchanged.");
}

/** Votes on an image that have an effect, oldest first. */
export const votesOn = (image) => state.session.votes.filter((vote) => vote.image === image && vote.strength !== 0);

/** Likes (1) or dislikes (-1) an image; if that vote exists already, takes back all votes on the image. */
export function toggleVote(image, direction) {
  const isCast = votesOn(image).some((vote) => Math.sign(vote.strength) === direction);
  return isCast ? takeBackVotes(image) : castVote(image, direction);
}

/** Words of an aspect, for example "style" or "its warm light". */
export function aspectText(aspect) {
  if (aspect === null) return "whole image";
  return typeof aspect === "string" ? aspect : (aspect.object ?? aspect.words ?? "");
}

/** Words of a vote, for example "liked for its style". */
export function voteText({ strength, reason }) {
  const vote = strength > 0 ? "liked" : "disliked";
  if (reason === null || reason === undefined) return vote;
  const text = aspectText(reason);
  return `${vote} for ${text === "everything" || /^(its|the|a|an) /i.test(text) ? text : `its ${text}`}`;
}

/** Alternative text of an image of a round. */
export function imageText(round, position) {
  const votes = votesOn(round.images[position]).map(voteText);
  return [`Image ${position + 1} of round ${round.index + 1}`, ...votes].join(", ");
}

/** Selects an image of a round, or none. */
export function select(selected) {
  const { round, position } = state.selected ?? {};
  if (round === selected?.round && position === selected?.position) return;
  state.selected = selected;
  changed("selected");
}

/** Starts a round of this many images. */
export async function startRound(images) {
  const { id } = state.session;
  try {
    await inOrder(async () => {
      const job = await api("POST", `/api/sessions/${id}/rounds`, { images });
      if (state.session?.id === id) follow(job);
    });
  } catch (error) {
    // Another tab may have started it.
    if (error.code === "busy") await refresh();
    throw error;
  }
}

/** Cancels the round that is being generated. */
export async function cancelRound() {
  if (state.job) await api("DELETE", `/api/jobs/${state.job.id}`);
}

let stopWatching = () => {};
/** Jobs of the open session that are followed, are no rounds, or have ended. */
const seen = new Set();

/** Follows the unfinished round of the open session, if there is one that is not followed yet. */
async function followJobs() {
  const { session } = state;
  for (const id of session.jobs) {
    if (state.job || seen.has(id)) continue;
    seen.add(id);
    const job = await get(`/api/jobs/${id}`).catch((error) => {
      seen.delete(id);
      throw error;
    });
    if (state.session?.id !== session.id) return;
    if (job.kind === "round" && !hasEnded(job) && !state.job) follow(job);
  }
}

/** Shows the progress of a round of the open session until it ends. */
function follow(job) {
  seen.add(job.id);
  stopWatching();
  state.job = { ...job, previews: [], decoded: [], isConnected: true };
  changed("job");
  stopWatching = watchJob(job.id, (name, data) => {
    const known = state.job;
    if (known?.id !== job.id) return;
    known.isConnected = name !== "reconnecting";
    if (name === "state") Object.assign(known, data);
    else if (name === "place") known.place = data.place;
    else if (name === "phase") Object.assign(known, { phase: data.phase, place: 0 });
    else if (name === "step") Object.assign(known, { ...data, place: 0 });
    else if (name === "preview") known.previews[data.image] = previewUrl(job.id, data.image, data.step);
    else if (name === "image") {
      known.decoded[data.image] = true;
      known.previews[data.image] = jobImageUrl(job.id, data.image);
    }
    else if (name !== "reconnecting") {
      known.round = data.round ?? null;
      end(job, name, data).catch(showError);
    }
    changed("job");
  });
}

/** Shows the session after its round has ended. */
async function end(job, name, data) {
  let session = null;
  let before = null;
  try {
    session = await inOrder(() => get(`/api/sessions/${job.session}`));
    before = state.session;
    if (name === "done") await preload(session);
  } finally {
    if (state.job?.id === job.id) {
      state.job = null;
      // Keys select in the newest round then.
      if (name === "done") state.selected = null;
      // A vote that was cast in the meantime was answered with a newer state.
      if (state.session === before) show(session);
      changed("job");
    }
  }
  if (name === "done") announce(`Round ${session.rounds.length} is ready.`);
  else if (name === "cancelled") showMessage("The round was cancelled.");
  else if (name === "failed") showError(typeof data.error === "object" ? (data.error ?? {}) : { message: data.error });
  else showMessage("The server no longer knows this round.", "Start the round again.", "error");
  await loadSessions();
}

/** Waits until the images of the newest round are loaded, or two seconds at most, so that none of them flickers. */
function preload(session) {
  const images = session.rounds.at(-1)?.images ?? [];
  const loaded = images.map((hash) => {
    const image = new Image();
    image.src = imageUrl(session.id, hash);
    return image.decode().catch(() => {});
  });
  return Promise.race([Promise.all(loaded), new Promise((resolve) => setTimeout(resolve, 2_000))]);
}

// Requests to the server, and the events of its jobs.

/** An error that the server answered, or the failure to reach it. */
export class ApiError extends Error {
  constructor({ status = 0, code = "internal", message, expected = "", got = "", next = "" }) {
    super(message);
    Object.assign(this, { status, code, expected, got, next });
  }
}

/** Largest image file in bytes. In base64 it takes a third more, and the server takes 24 MB. */
const MAX_FILE = 17_000_000;
const FILE_TYPES = ["image/png", "image/jpeg", "image/webp"];

/** Sends a request and returns its JSON, or `null` for an answer without a body. */
export async function api(method, path, body = undefined) {
  const isFile = body instanceof Blob;
  const options = { method, cache: "no-store", headers: { Accept: "application/json" } };
  // Uploads may take long; all other answers come at once.
  options.signal = AbortSignal.timeout(isFile ? 600_000 : 60_000);
  if (method !== "GET") {
    options.headers["Content-Type"] = isFile ? "application/zip" : "application/json";
    options.body = isFile ? body : JSON.stringify(body ?? {});
  }
  if (method === "DELETE") delete options.body;
  let response;
  let text;
  try {
    response = await fetch(path, options);
    text = await response.text();
  } catch (error) {
    const isLate = error.name === "TimeoutError";
    throw new ApiError({
      code: "unreachable",
      message: isLate ? "The server did not answer in time." : "The server cannot be reached.",
      next: "Check that fabric-studio still runs, then try again.",
    });
  }
  let json = null;
  try {
    json = text ? JSON.parse(text) : null;
  } catch {
    // A body that is no JSON is reported by its status below.
  }
  if (response.ok && (json !== null || !text)) return json;
  const { status } = response;
  throw new ApiError({ message: `The server answered ${status}.`, ...describe(json, status), status });
}

/** The error of an answer, or the next step if the answer does not say. */
function describe(json, status) {
  const found = json?.error;
  if (found && typeof found === "object") return found;
  if (typeof found === "string") return { message: found };
  if (status === 401) return { next: "Open the address with the token that the server printed when it started." };
  return { next: "Reload the page, or read the server's output." };
}

export const get = (path) => api("GET", path);

export const imageUrl = (session, hash) => `/api/sessions/${session}/images/${hash}`;
export const previewUrl = (job, image, step) => `/api/jobs/${job}/previews/${image}?step=${step}`;
export const jobImageUrl = (job, image) => `/api/jobs/${job}/images/${image}`;

/** Returns a file that can be used as an image. Throws if it has another type or is too large. */
export function checkImageFile(file) {
  if (!FILE_TYPES.includes(file.type)) {
    const [expected, got] = ["a PNG, JPEG or WebP image", file.type || "an unknown type"];
    const next = "Save the image as one of these.";
    throw new ApiError({ message: `The file ${file.name} cannot be used.`, expected, got, next });
  }
  if (file.size > MAX_FILE) {
    const got = `${(file.size / 1e6).toFixed(1)} MB`;
    const next = "Make the image smaller.";
    throw new ApiError({ message: `The file ${file.name} is too large.`, expected: "at most 17 MB", got, next });
  }
  return file;
}

/** Returns an image file as base64. */
export function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    const error = new ApiError({ message: `The file ${file.name} cannot be read.`, next: "Choose the file again." });
    reader.onerror = () => reject(error);
    reader.readAsDataURL(file);
  });
}

/** Returns whether a job has ended. */
export const hasEnded = (job) => ["done", "failed", "cancelled"].includes(job.state);

const EVENTS = ["message", "state", "job", "place", "phase", "step", "preview", "image", "done", "failed", "cancelled"];
const LAST = new Set(["done", "failed", "cancelled", "lost"]);
const SILENCE = 30_000;

/**
 * Listens to the events of a job until it ends, across lost connections. Calls `listener(name, data)` with the events
 * of the server, with `state` and the job after each connection, with `reconnecting` when the connection is lost, and
 * with `lost` if the server no longer knows the job. Returns a function that stops listening.
 */
export function watchJob(id, listener) {
  let source = null;
  let retry = 0;
  let silence = 0;
  let delay = 500;
  let stopped = false;

  const stop = () => {
    stopped = true;
    source?.close();
    clearTimeout(retry);
    clearTimeout(silence);
  };
  const tell = (name, data) => {
    if (stopped) return;
    if (LAST.has(name)) stop();
    listener(name, data);
  };
  const tellState = (job) => {
    if (!hasEnded(job)) tell("state", job);
    else tell(job.state, { round: job.round, error: job.error, images: job.images });
  };
  const check = async () => {
    try {
      tellState(await get(`/api/jobs/${id}`));
    } catch (error) {
      if (error.status === 404) tell("lost", {});
      else if (!stopped) reconnect();
      return false;
    }
    return !stopped;
  };
  const reconnect = () => {
    source?.close();
    clearTimeout(retry);
    clearTimeout(silence);
    tell("reconnecting", {});
    retry = setTimeout(async () => {
      if (await check()) connect();
    }, delay);
    delay = Math.min(2 * delay, 10_000);
  };
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(async () => {
      if (await check()) heard();
    }, SILENCE);
  };
  const connect = () => {
    source = new EventSource(`/api/jobs/${id}/events`);
    for (const name of EVENTS) {
      source.addEventListener(name, (event) => {
        let data;
        try {
          data = JSON.parse(event.data);
        } catch {
          return;
        }
        delay = 500;
        heard();
        if (["message", "state", "job"].includes(name)) tellState(data);
        else tell(name, data);
      });
    }
    source.addEventListener("error", () => {
      if (!stopped) reconnect();
    });
    heard();
  };
  connect();
  return stop;
}

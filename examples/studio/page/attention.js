// The dialog that shows how a round was made: where and when its references acted, and the time of each step.

import { get, imageUrl } from "./api.js";
import { $, el, openDialog } from "./dom.js";
import { state } from "./session.js";

/** Shows the attention that each reference of a round got, in its images and by layer and step, and the times. */
export async function openAttention(round) {
  const { id } = state.session;
  const address = `/api/sessions/${id}/rounds/${round.index}`;
  const isMeasured = round.settings?.measure_attention === true;
  const attention = isMeasured ? get(`${address}/attention`) : { references: [] };
  const [{ references }, timeline] = await Promise.all([attention, get(`${address}/timeline`)]);
  const most = largest(references.flatMap((one) => one.layers.flatMap((layer) => layer.steps)));
  $("#attention-title").textContent = `Attention of round ${round.index + 1}`;
  $("#attention-text").textContent = attentionText(isMeasured, references, most);
  $("#attention-references").replaceChildren(...references.map((one) => referenceSection(id, round, one, most)));
  showTimeline(round, timeline);
  openDialog($("#attention"));
}

// There can be more numbers than a function takes arguments.
const largest = (numbers) => numbers.reduce((most, number) => Math.max(most, number), 1e-6);

function attentionText(isMeasured, references, most) {
  if (!isMeasured) {
    return "The attention of this round was not measured. Tick “measure attention” in the settings, then make " +
      "another round.";
  }
  if (!references.length) return "This round had no references, so no attention went to any.";
  return "Share of the self-attention that went to each reference. The images are clear where it acted most and grey " +
    `where it acted least; point at one to see it as it is. In the tables, the strongest colour is ${percent(most)}.`;
}

function referenceSection(id, round, reference, most) {
  const isUnused = !(reference.mean > 0);
  return el("section", { class: `attention-reference ${reference.side}` },
    el("header", {},
      // The server does not always know the image of a reference.
      reference.image ? el("img", { src: imageUrl(id, reference.image), alt: "" }) : null,
      el("div", {},
        el("h3", {}, `${reference.side} reference`),
        el("p", { class: "meta" }, isUnused ? "no weight in this round" : `mean share ${percent(reference.mean)}`))),
    isUnused ? null : veiledImages(id, round, reference),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Attention by layer and step" },
      heatMap(reference, most)));
}

/** Largest opacity of the veil: the image stays recognisable below it. */
const VEIL = 0.85;

/** Shows the images of a round below a grey veil, which is clear where a reference acted. */
function veiledImages(id, round, { maps, side }) {
  const shares = maps.flat(2);
  const low = shares.reduce((least, share) => Math.min(least, share), Infinity);
  const high = largest(shares);
  const figures = round.images.map((hash, at) => {
    const [first, last] = extremes(maps[at] ?? []);
    if (!first) return null;
    const name = `Image ${at + 1} of round ${round.index + 1}`;
    const text = `${name}. The ${side} reference acted most at the ${first.place} (${percent(first.share)}) and ` +
      `least at the ${last.place} (${percent(last.share)}).`;
    return el("figure", { class: "veiled", title: text },
      el("img", { src: imageUrl(id, hash), alt: text }),
      veil(maps[at], low, high));
  });
  return el("div", { class: "veiled-images" }, ...figures);
}

/** Creates a canvas with a pixel for each cell of a map; the style sheet stretches it over the image. */
function veil(map, low, high) {
  const canvas = el("canvas", { width: map[0].length, height: map.length, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  map.forEach((row, y) => row.forEach((share, x) => {
    const clear = high > low ? (share - low) / (high - low) : 1;
    context.fillStyle = `rgb(128 128 128 / ${(VEIL * (1 - clear)).toFixed(3)})`;
    context.fillRect(x, y, 1, 1);
  }));
  return canvas;
}

const PLACES = [
  ["top left", "top", "top right"],
  ["left", "centre", "right"],
  ["bottom left", "bottom", "bottom right"],
];

/** Returns the ninths of a map with the largest and the smallest mean share; nothing if it has no cells. */
function extremes(map) {
  const ninths = new Map();
  map.forEach((row, y) => row.forEach((share, x) => {
    const place = PLACES[Math.floor((3 * y) / map.length)][Math.floor((3 * x) / row.length)];
    const { sum, cells } = ninths.get(place) ?? { sum: 0, cells: 0 };
    ninths.set(place, { sum: sum + share, cells: cells + 1 });
  }));
  const means = [...ninths].map(([place, { sum, cells }]) => ({ place, share: sum / cells }));
  means.sort((one, other) => other.share - one.share);
  return [means.at(0), means.at(-1)];
}

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

/** "down_blocks.0.attentions.1.transformer_blocks.0.attn1" becomes "down 0.1.0". */
function layerName(name) {
  const parts = name.replace(/\.attn1$/, "").match(/^[a-z]+|\d+(?=\.|$)/g);
  const [block, ...numbers] = parts ?? [name];
  return `${block} ${numbers.join(".")}`;
}

/** Creates a table of the attention that a reference got, by layer and step. */
function heatMap(reference, most) {
  const steps = Math.max(0, ...reference.layers.map((layer) => layer.steps.length));
  const head = el("tr", {}, el("th", { scope: "col" }, "layer"));
  for (let step = 1; step <= steps; step += 1) head.append(el("th", { scope: "col" }, String(step)));
  const rows = reference.layers.map((layer) => {
    const row = el("tr", {}, el("th", { scope: "row", title: layer.name }, layerName(layer.name)));
    layer.steps.forEach((share, at) => {
      const text = percent(share);
      const value = el("span", { class: "visually-hidden" }, text);
      const cell = el("td", { title: `${layerName(layer.name)}, step ${at + 1}: ${text}` }, value);
      cell.style.setProperty("--share", (share / most).toFixed(3));
      row.append(cell);
    });
    return row;
  });
  return el("table", { class: "heat" }, el("thead", {}, head), el("tbody", {}, ...rows));
}

/** Shows the time of each part of a run, and its peak memory where the server's system tells it. */
function showTimeline(round, timeline) {
  // Some samplers evaluate the U-Net twice in a step, and a round can have several batches.
  const isBySteps = timeline.step_seconds.length === round.settings?.steps;
  const parts = [
    ["encoding the prompt", timeline.text_seconds],
    ["encoding images", timeline.encode_seconds],
    ...timeline.step_seconds.map((seconds, at) => [`${isBySteps ? "step" : "evaluation"} ${at + 1}`, seconds]),
    ["decoding the images", timeline.decode_seconds],
  ];
  const all = round.seconds ?? 0;
  const longest = largest(parts.map(([, seconds]) => seconds));
  const text = [all > 0 ? `The round took ${all.toFixed(2)} s.` : "The time of this round is not known."];
  if (timeline.peak_memory) {
    text.push(`The program used at most ${Math.round(timeline.peak_memory / 1e6)} MB of memory meanwhile.`);
  }
  $("#timeline-text").textContent = text.join(" ");
  $("#timeline-parts").hidden = !(all > 0);
  $("#timeline tbody").replaceChildren(...parts.map(([name, seconds]) => {
    const value = el("td", {}, `${seconds.toFixed(3)} s`);
    value.style.setProperty("--share", (seconds / longest).toFixed(3));
    return el("tr", {}, el("th", { scope: "row" }, name), value);
  }));
}

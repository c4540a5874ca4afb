// Plays with the studio in a browser, in a wide window and on a phone: `npm ci --ignore-scripts && npm test`.
//
// | variable | default | meaning |
// |---|---|---|
// | FABRIC_STUDIO | target/release/fabric-studio | the program, which serves the shipped model |
// | CHROMIUM | chromium | the browser |
// | STUDIO_SCREENSHOTS | out/studio-screenshots | folder for pictures of the page |
//
// Everything that a scenario does goes through the page. What the server has is only read.

import assert from "node:assert/strict";
import { access, constants } from "node:fs/promises";
import path from "node:path";
import { after, describe } from "node:test";
import puppeteer from "puppeteer-core";
import { playGuides } from "./guides.mjs";
import { playRounds } from "./rounds.mjs";
import { playSessions } from "./sessions.mjs";
import { Stage } from "./stage.mjs";

const WINDOWS = {
  desktop: { width: 1440, height: 900 },
  phone: { width: 390, height: 844, isMobile: true, hasTouch: true },
};

// Leaving in this way ends what was started already, which an exception outside of a test would not.
const [browser, ...stages] = await start().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
after(() => browser.close());

for (const stage of stages) {
  describe(`in a window ${stage.viewport.width} pixels wide`, () => {
    for (const play of [playRounds, playGuides, playSessions]) play(stage);
    after(() => stage.end());
  });
}

/** Starts the browser, and a server for each window. */
async function start() {
  const started = await launch();
  const windows = Object.entries(WINDOWS);
  return [started, ...(await Promise.all(windows.map(([name, viewport]) => Stage.start(started, name, viewport))))];
}

/** Starts the browser. */
async function launch() {
  const name = process.env.CHROMIUM || "chromium";
  const program = await pathOf(name);
  assert.ok(program, `there is no ${name}: install it, or set CHROMIUM to the path of the browser`);
  // The sandbox of Chromium does not work for root, and the shared memory of containers is small.
  const sandbox = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  return puppeteer.launch({ executablePath: program, args: ["--disable-dev-shm-usage", ...sandbox] });
}

/** Path of a program, or `undefined` if there is none. */
async function pathOf(name) {
  const folders = name.includes("/") ? [""] : process.env.PATH.split(path.delimiter);
  const places = folders.map((one) => path.resolve(one, name));
  const found = await Promise.all(places.map((place) => access(place, constants.X_OK).then(() => true, () => false)));
  return places.find((_, at) => found[at]);
}

// A tab of the browser with the studio, and waiting for what it shows.

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { ROOT } from "./server.mjs";

/** Longest time for a condition to hold, in milliseconds. It only matters if something is wrong. */
const PATIENCE = 60_000;

/** The same for a round, which a slow machine may generate while it does other work. */
const PATIENCE_OF_ROUNDS = 300_000;

/** Time between two looks at a condition, in milliseconds. */
const INTERVAL = 50;

const SCREENSHOTS = path.resolve(ROOT, process.env.STUDIO_SCREENSHOTS || "out/studio-screenshots");

/** Waits until `check` returns something true, and returns it. `what` says what is waited for. */
export async function until(what, check, patience = PATIENCE) {
  const end = Date.now() + patience;
  for (;;) {
    const result = await check();
    if (result) return result;
    if (Date.now() > end) throw new Error(`not within ${patience / 1000} s: ${what}`);
    await pause(INTERVAL);
  }
}

/** What the browser writes to its console about an answer with an error status. */
const REFUSED = /^Failed to load resource: the server responded with a status of (\d+)/;

/** A preview that the page asks for when its round has just ended is gone. The page shows the image instead. */
const isLatePreview = (text, url) => REFUSED.exec(text)?.[1] === "404" && /\/previews\/\d+\?step=\d+$/.test(url);

/** Selector of a round by its index. */
export const round = (index) => `#rounds [data-round="${index}"]`;

/** Selector of a part of a card, or of the card itself. */
export const card = (index, position, part = "") => `${round(index)} [data-position="${position}"] ${part}`.trim();

export class Tab {
  /** Opens a tab. `prefix` is the beginning of the names of its screenshots. */
  static async open(context, url, viewport, prefix) {
    const tab = new Tab();
    tab.page = await context.newPage();
    Object.assign(tab, { url, prefix, isNarrow: viewport.width <= 860, errors: [], mayShowError: false });
    tab.page.on("pageerror", (error) => tab.errors.push(String(error)));
    tab.page.on("console", (message) => {
      const [text, { url: source = "" }] = [message.text(), message.location()];
      if (message.type() === "error" && !isLatePreview(text, source)) tab.errors.push(`${text} ${source}`.trim());
    });
    // Not all of these are written to the console.
    await tab.page.evaluateOnNewDocument(() => {
      addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => {
        console.error(`Content-Security-Policy: ${violatedDirective} refused ${blockedURI}`);
      });
    });
    await tab.page.setViewport(viewport);
    await tab.page.goto(url);
    await tab.until("the page knows the model", () => tab.text("#model"));
    tab.model = await tab.get("/api/model");
    return tab;
  }

  /** Waits until `check` returns something true. Ends early if the page shows an error that is not expected. */
  until(what, check, patience) {
    return until(what, async () => {
      const error = this.mayShowError ? "" : await this.text('#message[data-kind="error"]');
      if (error) throw new Error(`the page shows an error, waiting for this: ${what}. The error: ${error}`);
      return check();
    }, patience);
  }

  /** Runs a function in the page. */
  evaluate(work, ...values) {
    return this.page.evaluate(work, ...values);
  }

  /** Number of elements. */
  count(selector) {
    return this.page.$$eval(selector, (all) => all.length);
  }

  /** Text of an element; empty if there is no such element. */
  async text(selector) {
    return (await this.page.$$eval(selector, (all) => all.map((one) => one.textContent.trim()))).join(" ");
  }

  /** Whether there is such an element that is not hidden. */
  async shows(selector) {
    return (await this.visible(selector)) !== null;
  }

  /** Returns the first such element that is not hidden, or `null`. */
  async visible(selector) {
    const found = await this.page.evaluateHandle((wanted) => {
      const isVisible = (one) => one.checkVisibility({ checkVisibilityCSS: true });
      return [...document.querySelectorAll(wanted)].find(isVisible) ?? null;
    }, selector);
    return found.asElement();
  }

  /** Waits for an element that is not hidden, scrolls to it, and returns it. */
  async find(selector) {
    const element = await this.until(`there is ${selector}`, () => this.visible(selector));
    await element.evaluate((one) => one.scrollIntoView({ block: "center", behavior: "instant" }));
    return element;
  }

  /** Points at an element: returns false if it was drawn anew in the meantime, before the pointer has moved. */
  async points(action) {
    try {
      await action();
      return true;
    } catch (error) {
      if (/not clickable|detached/.test(error.message)) return false;
      throw error;
    }
  }

  /** Presses an element in its middle, which nothing else may cover. */
  async press(selector) {
    await this.find(selector);
    const isFree = (one) => {
      const { left, top, width, height } = one.getBoundingClientRect();
      const hit = document.elementFromPoint(left + width / 2, top + height / 2);
      const isSeen = hit && (one.contains(hit) || hit.closest("label")?.contains(one));
      return isSeen && !one.disabled && one.getAttribute("aria-busy") !== "true";
    };
    await this.until(`${selector} can be pressed, and is not covered, disabled or busy`, async () => {
      // The page may draw it anew at any time.
      const element = await this.visible(selector);
      return element && (await element.evaluate(isFree)) && this.points(() => element.click());
    });
  }

  /** Types a text into a field, in place of what it has, and leaves the field. */
  async fill(selector, text) {
    const field = await this.find(selector);
    await field.evaluate((one) => {
      one.focus();
      one.select();
    });
    await this.page.keyboard.type(text);
    await this.page.keyboard.press("Tab");
  }

  /** Moves a slider or another field to a value. */
  async set(selector, value) {
    const field = await this.find(selector);
    await field.evaluate((one, to) => {
      one.value = to;
      for (const name of ["input", "change"]) one.dispatchEvent(new Event(name, { bubbles: true }));
    }, String(value));
  }

  /** Presses keys, one after another; `Shift+z` holds a key. */
  async keys(...names) {
    for (const name of names) {
      const [key, ...held] = name.split("+").reverse();
      for (const one of held) await this.page.keyboard.down(one);
      await this.page.keyboard.press(key);
      for (const one of held) await this.page.keyboard.up(one);
    }
  }

  /** Returns JSON of the interface. */
  get(address) {
    return this.evaluate(async (from) => (await fetch(from)).json(), address);
  }

  /** The open session, as the server has it. */
  session() {
    return this.get(`/api/sessions/${this.id}`);
  }

  /** Waits until the server has the open session in a state. */
  untilSession(what, check) {
    return this.until(`the session ${what}`, async () => check(await this.session()));
  }

  /** Id of the open session, from the address. */
  get id() {
    return this.page.url().match(/#\/session\/([0-9a-f]{16})$/)?.[1];
  }

  /** Starts a session, waits for its first round, and returns its id. */
  async start(prompt) {
    await this.press(".brand");
    await this.fill("#new-prompt", prompt);
    await this.press("#start");
    await this.untilRounds(1);
    return this.id;
  }

  /** Opens a session by its address. */
  async open(id, rounds) {
    await this.evaluate((to) => (location.hash = `#/session/${to}`), id);
    await this.untilRounds(rounds);
  }

  /** Generates the next round. */
  async nextRound() {
    const before = await this.count("#rounds .round");
    await this.press("#next-round");
    await this.untilRounds(before + 1);
  }

  /** Waits until the page shows this many finished rounds and all of their images. */
  async untilRounds(rounds) {
    await this.until(`there are ${rounds} finished rounds`, async () => {
      const [finished, unfinished] = [await this.count(".round:not(.in-progress)"), await this.count(".in-progress")];
      return finished === rounds && unfinished === 0 && (await this.shows("#next-round"));
    }, PATIENCE_OF_ROUNDS);
    await this.untilImages("#rounds .frame img");
  }

  /** Waits until all images of a selector are loaded. */
  untilImages(selector) {
    return this.until(`the images ${selector} are loaded`, () =>
      this.page.$$eval(selector, (all) => all.length > 0 && all.every((one) => one.complete && one.naturalWidth > 0)));
  }

  /** Opens the list of sessions, which is a drawer in a narrow window. */
  async openSidebar() {
    if (this.isNarrow && !(await this.shows(".menu-open #menu-close"))) await this.press("#menu");
  }

  /** Presses a button of a session in the list. */
  async pressInList(id, control) {
    await this.openSidebar();
    // The buttons appear below the pointer.
    const session = `#sessions [data-session="${id}"]`;
    await this.until(`the pointer is on ${session}`, async () => {
      const element = await this.find(session);
      return this.points(() => element.hover());
    });
    await this.press(`#sessions [data-session="${id}"] .${control}`);
  }

  /** Opens the settings if they are closed. */
  async openSettings() {
    if (!(await this.shows("#steps"))) await this.press("#settings > summary");
  }

  /** Sets steps and number of images of the next rounds. */
  async setRound({ steps, images }) {
    await this.openSettings();
    await this.fill("#steps", String(steps));
    await this.untilSession(`has ${steps} steps`, ({ settings }) => settings?.steps === steps);
    await this.page.select("#image-count", String(images));
  }

  /** Waits until steps of the round in progress are done, and returns their number. */
  stepsDone() {
    return this.until("a step of the round is done", async () => {
      const [, step] = (await this.text("#progress-text")).match(/^Step (\d+) of \d+$/) ?? [];
      return Number(step);
    });
  }

  /** Saves a picture of the window. */
  async screenshot(name) {
    await mkdir(SCREENSHOTS, { recursive: true });
    await this.until("what appears has appeared", () => this.evaluate(() => {
      const isFinite = (one) => one.effect.getComputedTiming().endTime < Infinity;
      return document.getAnimations().every((one) => !isFinite(one) || one.playState === "finished");
    }));
    await this.page.screenshot({ path: path.join(SCREENSHOTS, `${this.prefix}-${name}.png`) });
  }

  /** Saves a picture of the window in which a scenario failed. */
  screenshotOfFailure(title) {
    this.mayShowError = true;
    return this.screenshot(`failed-${title.replaceAll(/[^a-z]+/gi, "-")}`);
  }

  /** Returns width, height and bytes of images: those of a selector in the page, or one by its address. */
  pixels(source) {
    return this.evaluate(async (from) => {
      const one = () => [Object.assign(new Image(), { src: from })];
      const all = [];
      for (const image of from.startsWith("/") ? one() : document.querySelectorAll(from)) {
        await image.decode();
        const { naturalWidth: width, naturalHeight: height } = image;
        const drawn = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
        drawn.drawImage(image, 0, 0);
        all.push({ width, height, data: [...drawn.getImageData(0, 0, width, height).data] });
      }
      return all;
    }, source);
  }

  /** Drops a file, as from a window of files. */
  async drop(file, selector) {
    const { x, y, width, height } = await (await this.find(selector)).boundingBox();
    const client = await this.page.createCDPSession();
    for (const type of ["dragEnter", "dragOver", "drop"]) {
      const data = { items: [], files: [file], dragOperationsMask: 1 };
      await client.send("Input.dispatchDragEvent", { type, x: x + width / 2, y: y + height / 2, data });
    }
    await client.detach();
  }

  /** Returns the errors in the console since the last call. */
  takeErrors() {
    const { errors } = this;
    this.errors = [];
    return errors;
  }

  /** Closes the tab. Errors in the console and violations of the content security policy are failures. */
  async close() {
    await this.page.close();
    assert.deepEqual(this.takeErrors(), [], "errors in the console");
  }
}

// Scenarios of sessions: branches, files, several tabs and the gallery.

import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import path from "node:path";
import { card, round, until } from "./tab.mjs";

const STAR = "a small red star on a green background";
const RING = "a large blue ring on a white background";

export function playSessions(stage) {
  stage.scenario("a session branches off an earlier round", async (tab) => {
    const first = await tab.start(STAR);
    await tab.press(card(0, 0, ".like"));
    await tab.nextRound();
    await tab.press(`${round(0)} .branch`);
    await tab.until("another session is open", () => tab.id !== first);
    await tab.untilRounds(1);
    const branched = await tab.session();
    assert.deepEqual(branched.parent, { session: first, round: 0 });
    assert.equal(branched.votes.length, 1, "the votes on the round belong to the branch");
    await tab.press("#parent-link");
    await tab.until("the first session is open", () => tab.id === first);
    await tab.untilRounds(2);
    assert.deepEqual((await tab.session()).rounds[0].images, branched.rounds[0].images);
  });

  stage.scenario("a session is still there after the server was started again", async (tab) => {
    const id = await tab.start(RING);
    await tab.press(card(0, 3, ".like"));
    await tab.nextRound();
    const saved = await tab.session();
    // Without a server, a page that looks for it again would write to the console.
    await tab.page.goto("about:blank");
    await stage.restart();
    const again = await stage.open();
    await again.open(id, 2);
    assert.deepEqual(await again.session(), saved);
    assert.equal(await again.page.$eval(card(0, 3, ".like"), (one) => one.getAttribute("aria-pressed")), "true");
    await again.nextRound();
    await again.close();
  });

  stage.scenario("a session is exported, imported, renamed and deleted", async (tab) => {
    const id = await tab.start(STAR);
    await tab.press(card(0, 0, ".dislike"));
    await tab.untilSession("has a vote", ({ votes }) => votes.length === 1);
    const before = await tab.session();
    await tab.pressInList(id, "export");
    await until("the file is there", async () => (await readdir(stage.folder)).includes(`${id}.zip`));
    await (await tab.page.$("#import-file")).uploadFile(path.join(stage.folder, `${id}.zip`));
    await tab.until("another session is open", () => tab.id && tab.id !== id);
    await tab.untilRounds(1);
    const { id: imported, ...copy } = await tab.session();
    for (const part of ["prompt", "seed", "rounds", "votes"]) assert.deepEqual(copy[part], before[part], part);

    await tab.pressInList(imported, "rename");
    await tab.fill("#ask-input", "My star");
    await tab.press("#ask-yes");
    await tab.until("the title is shown", async () => (await tab.text("#sessions .open")).includes("My star"));
    await tab.pressInList(imported, "delete");
    await tab.screenshot("delete");
    await tab.press("#ask-yes");
    await tab.until("the session is gone", async () =>
      (await tab.count(`#sessions [data-session="${imported}"]`)) === 0 && (await tab.shows("#start-view")));
    const { sessions } = await tab.get("/api/sessions");
    assert.deepEqual(sessions.filter((one) => [id, imported].includes(one.id)).map((one) => one.id), [id]);
  });

  stage.scenario("two tabs vote on one image", async (tab) => {
    const id = await tab.start(RING);
    const other = await stage.open();
    await other.open(id, 1);
    await other.press(card(0, 0, ".dislike"));
    await other.untilSession("has a dislike", ({ votes }) => votes[0]?.strength === -1);
    // This tab does not know of that vote yet.
    await tab.page.bringToFront();
    await tab.press(card(0, 0, ".like"));
    await tab.until("the like counts", () => tab.shows(`${card(0, 0)}.liked:not(.disliked)`));
    await other.page.bringToFront();
    await other.until("the other tab shows it", () => other.shows(`${card(0, 0)}.liked:not(.disliked)`));
    assert.deepEqual((await tab.session()).votes.map(({ strength }) => strength), [1]);
    // A round that one tab starts is the other tab's round, too.
    await other.nextRound();
    await tab.page.bringToFront();
    await tab.untilRounds(2);
    await other.close();
  });

  stage.scenario("the gallery has the images of all sessions", async (tab) => {
    const id = await tab.start(RING);
    await tab.press(card(0, 2, ".like"));
    await tab.untilSession("has a vote", ({ votes }) => votes.length === 1);
    const { rounds } = await tab.session();
    await tab.openSidebar();
    await tab.press("#open-gallery");
    const image = `.gallery-item[href="#/session/${id}"][data-image="${rounds[0].images[2]}"]`;
    await tab.until("the liked image is there", async () => (await tab.text(image)) === "1");
    await tab.untilImages(".gallery-item:first-child img");
    await tab.screenshot("gallery");
    await tab.press(image);
    await tab.until("its session is open", () => tab.id === id);
    await tab.until("the image is selected", () => tab.shows(`${card(0, 2)}.selected`));
  });

  stage.scenario("the gallery shows liked, disliked or other images alone", async (tab) => {
    const id = await tab.start(STAR);
    await tab.press(card(0, 0, ".like"));
    await tab.press(card(0, 1, ".dislike"));
    await tab.untilSession("has two votes", ({ votes }) => votes.length === 2);
    const [{ images }] = (await tab.session()).rounds;
    await tab.openSidebar();
    await tab.press("#open-gallery");
    // Other scenarios have sessions, too.
    const own = `.gallery-item[href="#/session/${id}"]`;
    const shows = (...places) => tab.until(`the gallery shows the images ${places}`, async () => {
      const shown = await tab.page.$$eval(own, (all) => all.map((one) => one.dataset.image));
      return JSON.stringify(shown.sort()) === JSON.stringify(places.map((at) => images[at]).sort());
    });
    const chosen = () => tab.page.$eval("#gallery-filter :checked", (one) => one.value);
    await shows(0, 1, 2, 3);

    // Keys alone lead to the filter and change it.
    await tab.page.focus("#gallery-sort");
    await tab.keys("Shift+Tab");
    assert.equal(await tab.evaluate(() => document.activeElement.value), "all");
    await tab.keys("ArrowRight");
    await shows(0);
    await tab.keys("ArrowRight");
    await shows(1);
    await tab.keys("ArrowRight");
    await shows(2, 3);
    await tab.screenshot("gallery-filter");

    // The choice stays when the gallery is sorted, left and loaded again.
    await tab.page.select("#gallery-sort", "new");
    await shows(2, 3);
    await tab.open(id, 1);
    await tab.openSidebar();
    await tab.press("#open-gallery");
    await shows(2, 3);
    await tab.page.reload();
    await shows(2, 3);
    assert.equal(await chosen(), "unvoted");
    await tab.press('#gallery-filter label:has([value="disliked"])');
    await shows(1);
  });
}

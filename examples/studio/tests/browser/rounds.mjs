// Scenarios of rounds: votes, progress, undo, comparison, attention and keys.

import assert from "node:assert/strict";
import { card, round } from "./tab.mjs";

/** A round with so many steps is still in progress when the page has been loaded again. */
const MANY_STEPS = 800;

const STAR = "a large red striped star on a blue background";
const RING = "a small green ring on a yellow background";

export function playRounds(stage) {
  stage.scenario("three rounds with votes", async (tab, t) => {
    await tab.screenshot("start");
    await watchFirstPreview(tab);
    await tab.start(STAR);
    // A fast round can end before the page shows a preview. A long one below must have one.
    const milliseconds = await tab.evaluate(() => window.firstPreview);
    const time = milliseconds ? `after ${(milliseconds / 1000).toFixed(2)} s` : "not before the images";
    t.diagnostic(`${stage.name}: the first preview appears ${time}`);

    await tab.press(card(0, 0, ".like"));
    await tab.press(card(0, 1, ".dislike"));
    await tab.untilSession("has two votes", ({ votes }) => votes.length === 2);
    await tab.until("both votes are shown", async () =>
      (await tab.count(".card.liked")) === 1 && (await tab.count(".card.disliked")) === 1);
    assert.equal(await tab.page.$eval(card(0, 0, ".frame img"), (one) => one.alt), "Image 1 of round 1, liked");
    await tab.screenshot("votes");
    await tab.nextRound();
    assert.equal(await tab.count(`${round(1)} .thumbnail.liked`), 1);
    assert.equal(await tab.count(`${round(1)} .thumbnail.disliked`), 1);

    await tab.press(card(1, 0, ".like"));
    await tab.untilSession("has three votes", ({ votes }) => votes.length === 3);
    await tab.nextRound();
    const { rounds } = await tab.session();
    assert.deepEqual(rounds.map(({ index, images }) => [index, images.length]), [[0, 4], [1, 4], [2, 4]]);
    assert.deepEqual(rounds[2].made_with.liked, [rounds[0].images[0], rounds[1].images[0]]);
    await tab.screenshot("three-rounds");
  });

  stage.scenario("votes with reasons", async (tab, t) => {
    const { aspects } = tab.model;
    if (!aspects.length) {
      t.skip("the model has no adapter");
      return;
    }
    await tab.start(STAR);
    const aspect = aspects.includes("style") ? "style" : aspects[0];
    await tab.press(card(0, 0, ".reason"));
    await tab.press(`#reason [data-aspect="${aspect}"]`);
    await tab.set("#reason-strength", 0.6);
    await tab.screenshot("reason");
    await tab.press("#reason-save");
    await tab.until("the reason is shown", async () =>
      /^liked for .*, 60 %$/.test(await tab.text(card(0, 0, ".votes"))));
    await tab.press(card(0, 1, ".reason"));
    await tab.press("#reason-direction");
    if (aspects.includes("words")) await tab.fill("#reason-words", "its background");
    else await tab.press(`#reason [data-aspect="${aspect}"]`);
    await tab.press("#reason-save");
    await tab.until("the other reason is shown", async () =>
      /^disliked for /.test(await tab.text(card(0, 1, ".votes"))));
    await tab.nextRound();
    const { rounds, votes } = await tab.session();
    assert.deepEqual(votes.map(({ strength }) => strength), [0.6, -1]);
    const { liked, disliked } = rounds[1].made_with;
    assert.deepEqual([liked, disliked], [[rounds[0].images[0]], [rounds[0].images[1]]]);
    await tab.press(card(0, 0, ".chip-remove"));
    await tab.until("the vote is taken back", async () => (await tab.text(card(0, 0, ".votes"))) === "");
    await tab.screenshot("reasons");
  });

  stage.scenario("a round is cancelled", async (tab) => {
    await tab.start(STAR);
    await tab.setRound({ steps: MANY_STEPS, images: 1 });
    await tab.press("#next-round");
    await tab.stepsDone();
    await tab.press("#cancel");
    await tab.untilRounds(1);
    await tab.until("the page says so", async () => (await tab.text("#message")).includes("The round was cancelled."));
    const { rounds, jobs } = await tab.session();
    assert.deepEqual([rounds.length, jobs], [1, []]);
    await tab.setRound({ steps: 4, images: 2 });
    await tab.nextRound();
    assert.equal(await tab.count(`${round(1)} .card`), 2);
  });

  stage.scenario("a round goes on when the page is loaded again", async (tab) => {
    await tab.start(RING);
    await tab.setRound({ steps: MANY_STEPS, images: 1 });
    await tab.press("#next-round");
    const before = await tab.stepsDone();
    await tab.page.reload();
    const later = await tab.stepsDone();
    assert.ok(later >= before, `step ${later} after step ${before}`);
    await tab.until("there is a preview", () => tab.shows('.card.pending img[src*="/previews/"]'));
    await tab.screenshot("in-progress");
    await tab.untilRounds(2);
    assert.equal((await tab.session()).rounds[1].settings.steps, MANY_STEPS);
  });

  stage.scenario("votes and rounds are undone and redone", async (tab) => {
    await tab.start(STAR);
    const shows = (rounds, likes) => tab.until(`there are ${rounds} rounds and ${likes} likes`, async () =>
      (await tab.count(".round")) === rounds && (await tab.count(".card.liked")) === likes);
    await tab.press(card(0, 2, ".like"));
    await shows(1, 1);
    await tab.press("#undo");
    await shows(1, 0);
    await tab.press("#undo");
    await shows(0, 0);
    assert.ok(await tab.page.$eval("#undo", (one) => one.disabled));
    await tab.press("#redo");
    await shows(1, 0);
    await tab.press("#redo");
    await shows(1, 1);
    assert.ok(await tab.page.$eval("#redo", (one) => one.disabled));
  });

  stage.scenario("a round is compared with the same one without votes", async (tab) => {
    await tab.start(STAR);
    await tab.press(card(0, 0, ".like"));
    await tab.press(card(0, 1, ".dislike"));
    await tab.nextRound();
    for (const [index, isSame] of [[0, true], [1, false]]) {
      await tab.press(`${round(index)} .compare`);
      await tab.until("the comparison is ready", async () => (await tab.text("#compare-text")).startsWith("Both rows"));
      await tab.until("all images are final", () => tab.shows("#compare-without:not(:has(.pending))"));
      await tab.untilImages("#compare img");
      const [votes, none] = [await tab.pixels("#compare-with img"), await tab.pixels("#compare-without img")];
      assert.equal(none.length, 4);
      assert.equal(JSON.stringify(votes) === JSON.stringify(none), isSame, `round ${index + 1}`);
      if (!isSame) await tab.screenshot("compare");
      await tab.keys("Escape");
      await tab.until("the dialog is closed", async () => !(await tab.shows("#compare")));
    }
  });

  stage.scenario("attention to the references is shown", async (tab) => {
    await tab.start(STAR);
    await tab.press(card(0, 0, ".like"));
    await tab.openSettings();
    await tab.press("#measure-attention");
    await tab.untilSession("measures attention", ({ settings }) => settings?.measure_attention);
    await tab.nextRound();
    await tab.press(`${round(1)} .attention`);
    await tab.until("there is a heat map", async () => (await tab.count("#attention .heat td")) > 0);
    assert.equal(await tab.count("#attention .attention-reference.liked"), 1);

    // Each image of the round has a veil, and says in words where the reference acted.
    await tab.untilImages("#attention .veiled img");
    const texts = await tab.page.$$eval("#attention .veiled img", (all) => all.map((one) => one.alt));
    assert.equal(texts.length, 4);
    texts.forEach((text, at) => {
      assert.ok(text.startsWith(`Image ${at + 1} of round 2. The liked reference acted most at the `), text);
    });
    const opacities = await tab.page.$$eval("#attention .veiled canvas", (all) => all.flatMap((one) => {
      const { data } = one.getContext("2d").getImageData(0, 0, one.width, one.height);
      return [...data].filter((_, at) => at % 4 === 3);
    }));
    assert.equal(opacities.length, 4 * 16 * 16);
    const [least, most] = [Math.min(...opacities), Math.max(...opacities)];
    assert.ok(least < 16 && most > 192 && most < 255, `opacities from ${least} to ${most}`);
    const isOverImage = await tab.page.$eval("#attention .veiled", (one) => {
      const [image, veil] = [...one.children].map((part) => part.getBoundingClientRect());
      return ["left", "top", "width", "height"].every((side) => Math.abs(image[side] - veil[side]) < 1);
    });
    assert.ok(isOverImage, "the veil covers its image");
    await tab.screenshot("attention");

    await tab.press("#timeline > summary");
    const hasAllParts = async (index) => {
      const timeline = await tab.get(`/api/sessions/${tab.id}/rounds/${index}/timeline`);
      assert.equal(await tab.count("#timeline tbody tr"), timeline.step_seconds.length + 3);
    };
    await hasAllParts(1);
    assert.match(await tab.text("#timeline-text"), /^The round took \d+\.\d\d s\./);
    await tab.screenshot("timeline");
    await tab.keys("Escape");
    await tab.until("the dialog is closed", async () => !(await tab.shows("#attention")));
    // A round without measured attention has times alone.
    await tab.press(`${round(0)} .attention`);
    await tab.until("the page says so", async () => (await tab.text("#attention-text")).includes("was not measured"));
    assert.equal(await tab.count("#attention .attention-reference"), 0);
    await hasAllParts(0);
  });

  stage.scenario("a round is steered by keys alone", async (tab) => {
    await tab.start(STAR);
    const chosen = () => tab.evaluate(() => document.activeElement.dataset.position);
    await tab.keys("1", "ArrowUp");
    await tab.until("the first image is liked", () => tab.shows(`${card(0, 0)}.liked.selected`));
    assert.equal(await chosen(), "0");
    await tab.keys("2", "ArrowDown");
    await tab.until("the second image is disliked", () => tab.shows(`${card(0, 1)}.disliked.selected`));
    assert.equal(await chosen(), "1");
    await tab.screenshot("keyboard");
    await tab.keys("Enter");
    await tab.untilRounds(2);
    const { rounds } = await tab.session();
    const { liked, disliked } = rounds[1].made_with;
    assert.deepEqual([liked, disliked], [[rounds[0].images[0]], [rounds[0].images[1]]]);
    await tab.keys("z");
    await tab.untilRounds(1);
    await tab.keys("Shift+Z");
    await tab.untilRounds(2);
    await tab.keys("?");
    await tab.until("the keys are listed", () => tab.shows("#keys"));
    await tab.keys("Escape");
    await tab.until("the list is closed", async () => !(await tab.shows("#keys")));
  });
}

/** Makes the page note the time from the start of a session to its first preview. */
function watchFirstPreview(tab) {
  return tab.evaluate(() => {
    const look = () => {
      const preview = document.querySelector('.card.pending img[src*="/previews/"]:not([hidden])');
      if (preview) window.firstPreview ??= performance.now() - window.started;
    };
    const changes = { subtree: true, childList: true, attributeFilter: ["hidden", "src"] };
    new MutationObserver(look).observe(document.body, changes);
    document.querySelector("#start").addEventListener("click", () => (window.started = performance.now()));
  });
}

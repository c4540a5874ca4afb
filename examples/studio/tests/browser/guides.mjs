// Scenarios of what guides a round besides votes: image prompts, init image and settings.

import assert from "node:assert/strict";
import path from "node:path";
import { ROOT } from "./server.mjs";
import { card } from "./tab.mjs";

const PHOTO = path.join(ROOT, "examples/images/coffee.jpg");
const STAR = "a large red striped star on a blue background";
const RING = "a small green ring on a yellow background";

export function playGuides(stage) {
  stage.scenario("an image is dropped as an image prompt", async (tab, t) => {
    if (!tab.model.aspects.length) {
      t.skip("the model has no adapter");
      return;
    }
    await tab.start(RING);
    await tab.drop(PHOTO, "#drop-zone");
    await tab.until("it is in the list", async () => (await tab.count("#conditions li")) === 1);
    await tab.set('#conditions [data-control="scale"]', 0.5);
    await tab.untilSession("has the scale", ({ conditions }) => conditions[0].scale === 0.5);
    await tab.untilImages("#conditions img");
    await tab.screenshot("image-prompt");
    await tab.press(card(0, 1, ".use-image"));
    await tab.until("an image of the round is in the list, too", async () => (await tab.count("#conditions li")) === 2);
    await tab.nextRound();
    assert.equal((await tab.session()).rounds[1].made_with.conditions.length, 2);
    await tab.press('#conditions [data-at="0"] .icon-button');
    await tab.untilSession("has one image prompt", ({ conditions }) => conditions.length === 1);
  });

  stage.scenario("a part of an image is painted and generated anew", async (tab) => {
    await tab.start(STAR);
    await tab.press(card(0, 0, ".use-init"));
    const canvas = await (await tab.find("#mask-canvas")).boundingBox();
    const [x, y] = [canvas.x + canvas.width / 2, canvas.y + canvas.height / 2];
    await tab.page.mouse.move(x - 20, y);
    await tab.page.mouse.down();
    await tab.page.mouse.move(x + 20, y, { steps: 4 });
    await tab.page.mouse.up();
    await tab.until("the stroke is there", async () => (await tab.text("#mask-text")).includes("painted part"));
    await tab.screenshot("mask");
    await tab.press("#mask-save");
    await tab.untilSession("has a mask", ({ init_image: init }) => init?.mask);
    const { init_image: init, rounds } = await tab.session();
    assert.equal(init.image, rounds[0].images[0]);
    const [mask] = await tab.pixels(`/api/sessions/${tab.id}/images/${init.mask}`);
    const middle = 4 * (Math.floor(mask.height / 2) * mask.width + Math.floor(mask.width / 2));
    assert.deepEqual([mask.data[0], mask.data[middle]], [0, 255], "white where it was painted");
    await tab.nextRound();
    await tab.press("#init-remove");
    await tab.untilSession("has no init image", ({ init_image: none }) => none === null);
  });

  stage.scenario("a setting that is refused is explained and put back", async (tab) => {
    await tab.start(STAR);
    await tab.openSettings();
    const steps = () => tab.page.$eval("#steps", (one) => one.value);
    const before = await steps();
    tab.mayShowError = true;
    await tab.fill("#steps", "0");
    const message = await tab.until("there is an error", () => tab.text('#message[data-kind="error"]'));
    assert.match(message, /expected 1 to 10000, got 0/);
    assert.notEqual(await tab.text("#message .message-next"), "", "the message has a next step");
    await tab.until("the field has the value before", async () => (await steps()) === before);
    await tab.screenshot("refused");
    const [error, ...others] = tab.takeErrors();
    assert.match(error, /status of 4\d\d/, "the browser notes the answer");
    assert.deepEqual(others, []);
    await tab.press("#message button");
  });
}

// A server and a browser window for a number of scenarios.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { Server } from "./server.mjs";
import { Tab } from "./tab.mjs";

export class Stage {
  /** Starts a server with a new folder. `name` is the beginning of the names of screenshots. */
  static async start(browser, name, viewport) {
    const stage = Object.assign(new Stage(), { browser, name, viewport });
    // Downloads go there, too.
    stage.folder = await mkdtemp(path.join(tmpdir(), "studio-"));
    await stage.restart().catch(async (error) => {
      await rm(stage.folder, { recursive: true });
      throw error;
    });
    return stage;
  }

  /** Starts the server again, with the same sessions. */
  async restart() {
    await this.server?.stop();
    this.server = await Server.start(path.join(this.folder, "sessions"));
  }

  async end() {
    await this.server.stop();
    await rm(this.folder, { recursive: true });
  }

  /** Opens a tab of the scenario's browser. */
  open() {
    return Tab.open(this.context, this.server.url, this.viewport, this.name);
  }

  /** Plays a scenario in a browser that remembers nothing, in a tab in which nothing may go wrong. */
  scenario(title, work) {
    test(title, async (t) => {
      const downloadBehavior = { policy: "allow", downloadPath: this.folder };
      this.context = await this.browser.createBrowserContext({ downloadBehavior });
      try {
        const tab = await this.open();
        await work(tab, t).catch(async (error) => {
          await tab.screenshotOfFailure(title).catch((other) => t.diagnostic(`no screenshot: ${other.message}`));
          t.diagnostic(`the console: ${tab.takeErrors().join("\n")}`);
          t.diagnostic(`the program: ${this.server.output}`);
          throw error;
        });
        await tab.close();
      } finally {
        await this.context.close();
      }
    });
  }
}

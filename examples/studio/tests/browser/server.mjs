// The program under test.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

/** Root of the repository, where the program finds the shipped model. */
export const ROOT = fileURLToPath(new URL("../../../../", import.meta.url));

const PROGRAM = process.env.FABRIC_STUDIO || "target/release/fabric-studio";

/** Time for loading the model, in milliseconds. */
const PATIENCE = 60_000;

/** A running studio. `url` is the address of its page, ending in a slash. */
export class Server {
  /** Starts the studio on a free port, with the sessions of a folder. */
  static async start(folder) {
    const server = new Server();
    const options = { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] };
    server.process = spawn(PROGRAM, ["--port", "0", "--folder", folder], options);
    server.output = "";
    process.once("exit", () => server.process.kill("SIGKILL"));
    server.url = await new Promise((resolve, reject) => {
      const fail = (reason) => reject(new Error(`${PROGRAM} ${reason}. Its output:\n${server.output}`));
      const timer = setTimeout(fail, PATIENCE, `did not start in ${PATIENCE / 1000} s`);
      const listen = (data) => {
        server.output += data;
        const [, url] = server.output.match(/^open (http:\/\/\S+\/)$/m) ?? [];
        if (url) resolve(url);
        if (url) clearTimeout(timer);
      };
      server.process.stdout.on("data", listen);
      server.process.stderr.on("data", listen);
      server.process.on("error", (error) => fail(`cannot be run (${error.message}): build it, or set FABRIC_STUDIO`));
      server.process.on("exit", (code, signal) => fail(`ended with ${signal ?? code}`));
    }).catch((error) => {
      server.process.kill("SIGKILL");
      throw error;
    });
    return server;
  }

  /** Ends the program and waits until it has ended. */
  async stop() {
    const { process: running } = this;
    if (running.exitCode !== null || running.signalCode !== null) return;
    const ended = once(running, "exit");
    running.kill("SIGTERM");
    await ended;
  }
}

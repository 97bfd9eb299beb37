// Makes build/{{name}}.wasm. Without componentize-js, npm installs it first.

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";

const NEEDED = 20;
if (Number(process.versions.node.split(".")[0]) < NEEDED) {
  console.error(`componentize-js needs Node.js ${NEEDED} or newer, and this is ${process.version}: see https://nodejs.org`);
  process.exit(1);
}
if (!existsSync("node_modules")) {
  const npm = spawnSync("npm", ["install", "--silent", "--no-audit", "--no-fund"], { stdio: "inherit" });
  if (npm.status !== 0) {
    console.error("npm install failed");
    process.exit(1);
  }
}
const { componentize } = await import("@bytecodealliance/componentize-js");
const { component } = await componentize(await readFile("app.js", "utf8"), {
  witPath: "wit",
  worldName: "{{world}}",
  // What the service is not granted: it imports none of it then.
  disableFeatures: ["http", "fetch-event"],
});
await mkdir("build", { recursive: true });
await writeFile("build/{{name}}.wasm", component);

// Makes build/{{name}}.wasm.

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";

const { component } = await componentize(await readFile("app.js", "utf8"), {
  witPath: "wit",
  worldName: "{{world}}",
  // What the service is not granted: it imports none of it then.
  disableFeatures: ["http", "fetch-event"],
});
await mkdir("build", { recursive: true });
await writeFile("build/{{name}}.wasm", component);

// Makes a component of a JavaScript module, as `jco componentize` does: SOURCE WIT WORLD OUTPUT.
// Evaluated (`node -e`) where @bytecodealliance/componentize-js is installed.

import { readFile, writeFile } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";

const [source, witPath, worldName, output] = process.argv.slice(1);
const { component } = await componentize(await readFile(source, "utf8"), {
  witPath,
  worldName,
  disableFeatures: ["random", "stdio", "clocks", "http", "fetch-event"],
});
await writeFile(output, component);

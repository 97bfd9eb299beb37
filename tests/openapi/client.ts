// Calls textkit with the types that openapi-typescript made, by openapi-fetch. Arguments: the address
// of the host. That it compiles is half of the test.

import createClient from "openapi-fetch";
import type { components, operations, paths } from "./generated";

type Answers = operations["textkitWordCounts"]["responses"];
type Pair = Answers[200]["content"]["application/json"][number];

// Of Node, whose types are not needed for more.
declare const process: { argv: string[]; exit(code: number): never };

const client = createClient<paths>({ baseUrl: `http://${process.argv[2]}` });

function check(what: unknown, expected: unknown): void {
  const [given, wanted] = [JSON.stringify(what), JSON.stringify(expected)];
  if (given !== wanted) {
    throw new Error(`expected ${wanted}, got ${given}`);
  }
}

async function run(): Promise<void> {
  const product = await client.POST("/arith/multiply", { body: { a: 7, b: 8 } });
  const number: number | undefined = product.data;
  check(number, 56);
  const quotient = await client.POST("/arith/divide", { body: { a: 17, b: 5 } });
  const parts: components["schemas"]["ArithQuotient"] | undefined = quotient.data;
  check(parts, { quo: 3, rem: 2 });
  const byZero = await client.POST("/arith/divide", { body: { a: 1, b: 0 } });
  check([byZero.response.status, byZero.error], [422, { error: "divide-by-zero" }]);

  const figures = await client.POST("/textkit/analyze", { body: { text: "one two" } });
  const longest: string | null | undefined = figures.data?.longestWord;
  check([figures.data?.words, longest, figures.data?.wordsPerLine], [2, "one", 2]);
  const empty = await client.POST("/textkit/analyze", { body: { text: "" } });
  check(empty.data?.longestWord ?? null, null);
  const counts = await client.POST("/textkit/word-counts", { body: { text: "b a b" } });
  const first: Pair = ["b", 2];
  check(counts.data?.[0], first);
  const most = await client.POST("/textkit/word-counts", { body: { text: "b a b", atMost: 1 } });
  check(most.data, [["b", 2]]);
  const found = await client.POST("/textkit/find", {
    body: { haystack: "Cat cat", needle: "CAT", options: ["ignore-case"] },
  });
  check(found.data, [{ start: 0, end: 3, line: 1 }, { start: 4, end: 7, line: 1 }]);
  const tokens = await client.POST("/textkit/tokenize", { body: { text: "ab 12 !" } });
  const words = tokens.data?.map((token) => ("word" in token ? token.word : null));
  check(words, ["ab", null, null]);
  check(tokens.data, [{ word: "ab" }, { number: 12 }, { mark: "!" }]);
  const upper = await client.POST("/textkit/recase", { body: { text: "ab", to: "upper" } });
  check(upper.data, "AB");
  const joined = await client.POST("/textkit/join", { body: { parts: ["a", "b"], separator: "-" } });
  check(joined.data, "a-b");
  const hex = await client.POST("/textkit/encode", { body: { data: "AAEC/w==", using: "hex" } });
  check(hex.data, "000102ff");
  const bytes = await client.POST("/textkit/decode", { body: { text: "000102ff", using: "hex" } });
  check(bytes.data, "AAEC/w==");
  const damaged = await client.POST("/textkit/decode", { body: { text: "0z", using: "hex" } });
  check([damaged.response.status, damaged.error], [422, { error: { "bad-character": ["z", 1] } }]);
  const sum = await client.POST("/textkit/checksum", { body: { data: "MTIzNDU2Nzg5" } });
  check(sum.data, 0xcbf43926);
  const echo = await client.POST("/textkit/echo", { body: { data: "" } });
  check(echo.data, "");

  // What the document does not allow does not compile.
  // @ts-expect-error there is no such case
  const title = await client.POST("/textkit/recase", { body: { text: "ab", to: "sideways" } });
  check(title.response.status, 400);
  const failure = title.error as components["schemas"]["WharfFailure"];
  check([failure.code, failure.details?.[0]?.debug?.notExecuted], ["invalid_argument", true]);
  console.log("all calls answered");
}

run().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});

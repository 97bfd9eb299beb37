// Calls the service over HTTP: node call.mjs

const answer = await fetch("http://127.0.0.1:7400/{{path}}", {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({{arguments}}),
});
console.log(await answer.json());

// A client that knows one thing, the URL: it says what stands on its input, line by line, and keeps `data.session`.
//
//   node wizard.mjs URL [top|messages|edited|first]
//
// top       the session goes out at the top level, and each answer stays in the history with the session it carried
// messages  the session goes out in the history alone
// edited    as top, with the mirror reordered, retyped and edited before it goes out
// first     as top, but always the session of the first answer: a client that goes back
import { createInterface } from "node:readline";

const [url, mode = "top"] = process.argv.slice(2);
const history = [];
let first = null;
let last = null;

function edited(session) {
  if (!session) return session;
  const mirror = Object.entries(session).filter(([key]) => key !== "dcaf");
  const changed = mirror.reverse().map(([key, value]) => [key, typeof value === "number" ? value + 0.5 : "edited"]);
  return { planted: true, ...Object.fromEntries(changed), dcaf: session.dcaf };
}

function outgoing() {
  if (mode === "messages") return undefined;
  if (mode === "edited") return edited(last);
  return mode === "first" ? first : last;
}

for await (const text of createInterface({ input: process.stdin })) {
  history.push({ role: "user", content: text });
  const body = { messages: history, data: { session: outgoing() } };
  const response = await fetch(`${url}/api/chat`, { method: "POST", body: JSON.stringify(body) });
  const answer = await response.json();
  history.push(answer);
  last = answer.data.session;
  first ??= last;
  console.log(JSON.stringify({ status: response.status, content: answer.content, session: last }));
}

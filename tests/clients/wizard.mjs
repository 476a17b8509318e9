// A client that knows one thing, the URL: it says what stands on its input, line by line, and keeps `data.session`.
//
//   node wizard.mjs URL [top|messages|edited|edited-messages|first|forgetful]
//
// top       the session goes out at the top level, and each answer stays in the history with the session it carried
// messages  the session goes out in the history alone
// edited    as top, with the mirror reordered, retyped and edited before it goes out
// first     as top, but always the session of the first answer: a client that goes back
// edited-messages  as messages, with every mirror edited likewise
// forgetful        as messages, but a session without state goes out as {}: a typed client that drops what it does not know
//
// The line "(approves)" stands for a click: the calls that wait are approved.
// One JSON line a turn; `older` counts the sealed sessions that went out in the messages.
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

function approval() {
  const waiting = history.at(-1).data.approvals;
  return { role: "user", content: "", data: { approvals: waiting.map((item) => ({ ...item, execute: true })) } };
}

function messages() {
  return history.map((message) => {
    if (message.role !== "assistant") return message;
    if (mode === "edited-messages") return { ...message, data: { session: edited(message.data.session) } };
    const isEmpty = Object.keys(message.data.session).every((key) => key === "dcaf");
    if (mode === "forgetful" && isEmpty) return { ...message, data: { session: {} } };
    return message;
  });
}

function outgoing() {
  if (["messages", "edited-messages", "forgetful"].includes(mode)) return undefined;
  if (mode === "edited") return edited(last);
  return mode === "first" ? first : last;
}

for await (const text of createInterface({ input: process.stdin })) {
  history.push(text === "(approves)" ? approval() : { role: "user", content: text });
  const body = { messages: messages(), data: { session: outgoing() } };
  const older = body.messages.filter((message) => message.data?.session?.dcaf?.token).length;
  const response = await fetch(`${url}/api/chat`, { method: "POST", body: JSON.stringify(body) });
  const answer = await response.json();
  history.push(answer);
  last = answer.data.session;
  first ??= last;
  console.log(JSON.stringify({ status: response.status, code: answer.code, content: answer.content, session: last, older }));
}

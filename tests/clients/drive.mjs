// Conversations of examples/client.mjs, or of a variant of it, driven over a pipe: node drive.mjs
//
// A line of JSON comes in: {id, module, url} begins a conversation, {id, kept} gives it what was kept of another, {id, say} says
// something. With {leave: "break" | "return" | "throw" | "callback", after} the turn is left after so many events, with {abort} it
// is aborted: before it begins (0), after so many events, or, as {ms}, after a while. With {parts} nothing is sent: the answer comes
// in these parts, and with {broken} it breaks off at its end. With {silent} no event is told.
// Lines of JSON go out: {event} as each one comes, and at the end of every command how things stand.
import { createInterface } from "node:readline";
import { answerOf } from "./parts.mjs";

const chats = new Map();
const network = globalThis.fetch;
const sum = ({ user, system }) => user + system;
const tell = (what) => console.log(JSON.stringify(what));

async function looped(chat, { say, leave, after }, options) {
  let count = 0;
  for await (const event of chat.stream(say, options)) {
    tell({ event });
    if (++count < after) continue;
    if (leave === "break") break;
    if (leave === "return") return;
    throw Object.assign(new Error("left"), { code: "left" });
  }
}

async function said(chat, command) {
  const { say, leave, after, abort, silent } = command;
  const controller = new AbortController();
  if (abort === 0) controller.abort();
  if (abort?.ms) setTimeout(() => controller.abort(), abort.ms);
  if (["break", "return", "throw"].includes(leave)) return looped(chat, command, { signal: controller.signal });
  let count = 0;
  return chat.send(say, (event) => {
    if (!silent) tell({ event });
    count += 1;
    if (count === abort) controller.abort();
    if (leave === "callback" && count === after) throw Object.assign(new Error("left"), { code: "left" });
  }, { signal: controller.signal });
}

async function done(command) {
  const { id, module, url, kept, say, parts, broken } = command;
  if (module) chats.set(id, new (await import(module)).Conversation(url));
  const chat = Object.assign(chats.get(id), kept);
  globalThis.fetch = parts ? async () => answerOf(parts, { broken }) : network;
  const before = process.cpuUsage();
  const answer = say === undefined ? null : await said(chat, command);
  return { answer: answer ?? null, cpu_us: sum(process.cpuUsage(before)) };
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  const outcome = await done(command).catch((error) => ({ error: { message: error.message, ...error, cause: undefined } }));
  const { session, messages, waiting } = chats.get(command.id);
  tell({ ...outcome, session, messages, waiting, polluted: Object.keys(Object.prototype) });
}

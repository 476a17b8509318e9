// Runs the page's modules without a page: a JSON line on the input names a module, a function and its arguments; and where what
// it gives is an attempt to cheat, the outcome that is to be judged. With {parts} it names an answer instead: what comes of it is told,
// with the events and sessions as they were handed on.
import { createInterface } from "node:readline";
import { answerOf } from "../clients/parts.mjs";

const folder = process.argv[2];
const sum = ({ user, system }) => user + system;
const settled = () => new Promise((done) => setTimeout(done));

async function called({ module, name, args, outcome }) {
  const found = await import(`${folder}/${module}`);
  const value = found[name](...args);
  return outcome ? value.judge(outcome) : value;
}

async function exchanged({ parts, broken, status, stopAfter, from = folder }) {
  const { exchange } = await import(`${from}/exchange.js`);
  const told = { events: [], sessions: [], isCancelled: false };
  const stopping = new AbortController();
  const signal = stopAfter === undefined ? undefined : stopping.signal;
  globalThis.fetch = async () => answerOf(parts, { broken, status, signal, onCancel: () => (told.isCancelled = true) });
  const watch = (event) => told.events.push(event) === stopAfter && stopping.abort();
  const before = process.cpuUsage();
  const outcome = await exchange("{}", watch, stopping.signal, (session) => told.sessions.push(session));
  const cpu_us = sum(process.cpuUsage(before));
  await settled();
  return { ...told, outcome, cpu_us, polluted: Object.keys(Object.prototype) };
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  try {
    const value = await (command.parts ? exchanged(command) : called(command));
    console.log(JSON.stringify({ value }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}

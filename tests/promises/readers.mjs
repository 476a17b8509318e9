// What clients in JavaScript adopt of a stream. One stream a line, as base64; out comes a line with the sessions that each of them held,
// one after the other. The first argument is the wire: lines, events, or frames (a JSON array of texts).
import { createInterface } from "node:readline";
import { Conversation } from "../../examples/client.mjs";

const sessionOf = (value) => value?.data?.session;
const read = (texts) => texts.flatMap((text) => {
  try {
    return [sessionOf(JSON.parse(text))].filter((found) => found != null);
  } catch {
    return [];
  }
});

// The HTML standard, section 9.2.6.
const eventsOf = (text) => {
  const events = [];
  let data = [];
  for (const line of text.split(/\r\n|\n|\r/)) {
    const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (line === "" && data.length) events.push(data.join("\n"));
    if (line === "") data = [];
    if (name === "data") data.push(value);
  }
  return events;
};

const ownClient = async (body) => {
  globalThis.fetch = async () => new Response(body, { headers: { "content-type": "application/x-ndjson" } });
  const held = [];
  const conversation = new Conversation("http://agent.test");
  let session;
  Object.defineProperty(conversation, "session", { get: () => session, set: (found) => held.push((session = found)) });
  await conversation.send("hello", () => {}).catch(() => {});
  return held.filter((found) => found !== undefined);
};

for await (const line of createInterface({ input: process.stdin })) {
  const body = Buffer.from(line, "base64");
  const text = new TextDecoder().decode(body);
  const wire = process.argv[2];
  const found = {
    lines: async () => ({
      "JavaScript, lines": read(text.split("\n")),
      "JavaScript, lines with any end": read(text.split(/\r\n|\n|\r/)),
      "examples/client.mjs": await ownClient(body),
    }),
    events: async () => ({
      "JavaScript, an event source": read(eventsOf(text)),
      "JavaScript, each data line": read(text.split("\n").map((one) => one.replace(/^data: ?/, ""))),
    }),
    frames: async () => ({ "JavaScript, frames": read(JSON.parse(text)) }),
  };
  process.stdout.write(`${JSON.stringify(await found[wire]())}\n`);
}

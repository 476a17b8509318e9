// Conversations of examples/client.mjs, or of a variant of it, driven over a pipe: node drive.mjs
//
// A line of JSON comes in: {id, module, url} begins a conversation, {id, session} gives it a session, {id, say} says something.
// Lines of JSON go out: {event} as each one comes, and at the end of every command how things stand.
import { createInterface } from "node:readline";

const chats = new Map();
const tell = (what) => console.log(JSON.stringify(what));

async function done({ id, module, url, session, say }) {
  if (module) chats.set(id, new (await import(module)).Conversation(url));
  const chat = chats.get(id);
  if (session) chat.session = session;
  const answer = say === undefined ? null : await chat.send(say, (event) => tell({ event }));
  return { answer };
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  const outcome = await done(command).catch((error) => ({ error: { code: error.code, message: error.message } }));
  const { session, messages } = chats.get(command.id);
  tell({ ...outcome, session, messages });
}

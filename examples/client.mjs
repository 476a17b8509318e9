// A conversation with an agent, which keeps its session. Run it with: node examples/client.mjs URL "start" "service api"
/** @import { AgentEvent, Answer, Message, Session } from "./protocol" */
export class Conversation {
  session = /** @type {Session | undefined} */ (undefined); // data.session as it came: it goes back as it is
  messages = /** @type {Message[]} */ ([]); // what was said and answered, without sessions
  constructor(/** @type {string} */ url) { this.url = `${url}/api/chat-stream`; }
  /** Says one thing at a time. @returns {Promise<Answer & { restarted: string }>} why it began a new session, if it did */
  async send(/** @type {string | Message} */ said, /** @type {(event: AgentEvent) => void} */ onEvent = () => {}, restarted = "") {
    const message = /** @type {Message} */ (typeof said === "string" ? { role: "user", content: said } : said);
    const answer = /** @type {any} */ ({ role: "assistant", content: "", data: {} });
    let last = "";
    for await (const { type, ...event } of eventsOf(this.url, [...this.messages, message], this.session)) {
      const { session, ...data } = event.data ?? {};
      this.session = session ?? this.session; // keep it, whatever else came with it
      if (session?.dcaf?.token === "new" && !last && !restarted) return this.send(said, onEvent, event.code ?? type); // once
      if (type === "error") throw Object.assign(new Error(event.error ?? event.detail ?? event.code), { code: event.code });
      onEvent({ type, ...event });
      answer.content += type === "text_delta" ? event.text : "";
      Object.assign(answer.data, data, Array.isArray(event[type]) && { [type]: [...(answer.data[type] ?? []), ...event[type]] });
      last = type;
    }
    if (last !== "done" && last !== "session") throw new Error("The stream broke off. Send the turn again.");
    this.messages.push(message, answer);
    return { ...answer, restarted };
  }
}
async function* eventsOf(/** @type {string} */ url, /** @type {Message[]} */ messages, /** @type {Session=} */ session) {
  const body = JSON.stringify({ messages, data: { session } });
  const reply = await fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body });
  if (!reply.ok) yield { code: `http-${reply.status}`, ...(await reply.json().catch(() => ({}))), type: "error" };
  const reader = /** @type {ReadableStream} */ (reply.body).pipeThrough(new TextDecoderStream()).getReader();
  for (let lines = [""], part = await reader.read(); !part.done; part = await reader.read()) {
    lines = (lines[0] + part.value).split("\n");
    yield* lines.splice(0, lines.length - 1).filter(Boolean).map((line) => JSON.parse(line)); // what is left is not complete
  }
}
if (import.meta.filename && import.meta.filename === process.argv[1]) {
  const chat = new Conversation(process.argv[2]);
  for (const said of process.argv.slice(3)) console.log((await chat.send(said)).content, { ...chat.session, dcaf: "..." });
}

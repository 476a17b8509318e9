/** @import { AgentEvent, Answer, Message, Session } from "./protocol" */
const BROKEN_OFF = "The stream broke off. The turn may have run: ask before you send it again.";
const failed = (/** @type {string} */ code, words = code) => Object.assign(new Error(words), { code });
export class Conversation { // with an agent, over streams; it keeps the session
  session = /** @type {Session | undefined} */ (undefined); // data.session, as it came
  messages = /** @type {Message[]} */ ([]); // what was said and answered, without sessions
  constructor(/** @type {string} */ url) { this.url = `${url}/api/chat-stream`; }
  /** Says one thing at a time. @param {string | Message} said @param {(event: AgentEvent) => void} onEvent
   * @returns {Promise<Answer & { restarted: string }>} and the reason why a new session was begun, if one was */
  async send(said, onEvent = () => {}, restarted = "") {
    const message = /** @type {Message} */ (typeof said === "string" ? { role: "user", content: said } : said);
    const answer = /** @type {any} */ ({ role: "assistant", content: "", data: {} });
    for await (const event of this.eventsOf([...this.messages, message])) {
      const { session, ...data } = event.data ?? {};
      this.session = session ?? this.session; // keep it, whatever else came with it
      const isDead = event.type === "refused" && session?.dcaf?.token === "new"; // and nothing was done
      if (isDead && !restarted) return this.send(said, onEvent, event.code); // once more, and not twice
      if (["refused", "error"].includes(event.type)) throw failed(event.code, event.error ?? event.detail);
      onEvent(event);
      Object.assign(answer.data, data);
      if (event.type === "text_delta") answer.content += event.text;
      if (event.type === "done") answer.meta_data = event.meta_data ?? {};
      if (Array.isArray(event[event.type])) (answer.data[event.type] ??= []).push(...event[event.type]); // as approvals
    }
    if (!answer.meta_data) throw failed("broken-off", BROKEN_OFF);
    this.messages.push(message, { role: "assistant", content: answer.content, data: answer.data });
    return { ...answer, restarted };
  }
  async *eventsOf(/** @type {Message[]} */ messages) {
    const body = JSON.stringify({ messages, data: { session: this.session } });
    const reply = await fetch(this.url, { method: "POST", headers: { "Content-Type": "application/json" }, body });
    if (!reply.ok) yield { code: `http-${reply.status}`, ...(await reply.json().catch(() => ({}))), type: "refused" };
    const reader = /** @type {ReadableStream} */ (reply.body).pipeThrough(new TextDecoderStream()).getReader();
    const next = () => reader.read().catch(() => ({ done: true, value: "" })); // a connection that breaks is an end
    for (let lines = [""], part = await next(); !part.done; part = await next()) {
      lines = (lines.at(-1) + part.value).split("\n"); // the last one is not complete
      for (const line of lines.slice(0, -1)) if (line) yield JSON.parse(line);
    }
  }
}

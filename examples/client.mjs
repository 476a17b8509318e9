/** @import { AgentEvent, Answer, Answered, Approval, Message, Options, Session, TurnError } from "./protocol" */
const WORDS = "No whole answer came. The turn may have run: ask before you send it again.";
const textOf = (/** @type {unknown} */ value, otherwise = "") => (typeof value === "string" && value) || otherwise;
const listOf = (/** @type {any} */ value) => (Array.isArray(value) ? value : []);
/** @type {(code: string, words?: unknown, cause?: unknown) => TurnError} */
const failed = (code, words, cause) => Object.assign(new Error(textOf(words, WORDS), { cause }), { code });
/** @type {(code: string, signal?: AbortSignal) => (cause: unknown) => never} */
const failing = (code, signal) => (cause) => { throw failed(signal?.aborted ? "aborted" : code, WORDS, cause); };

export class Conversation { // with an agent, over streams; it keeps the session
  session = /** @type {Session | undefined} */ (undefined); // data.session, as it came
  messages = /** @type {Message[]} */ ([]); // what was said and answered, without sessions
  answer = /** @type {Answered | undefined} */ (undefined); // of the last turn, once it is there
  constructor(/** @type {string} */ url) { this.url = `${url}/api/chat-stream`; }
  get waiting() { // the calls that wait for a person, as the answers tell: also where these were stored
    const calls = /** @type {Map<string, Approval>} */ (new Map());
    for (const { data } of this.messages.filter(({ role }) => role === "assistant")) {
      for (const call of listOf(data?.executed_approvals)) calls.delete(call?.id);
      for (const call of listOf(data?.approvals)) calls.set(call?.id, call);
    }
    return [...calls.values()].filter((call) => call?.id);
  }
  /** @param {string | Message} said @param {(event: AgentEvent) => unknown} [onEvent] @param {Options} [options] */
  async send(said, onEvent = () => {}, options = {}) { // one thing at a time
    for await (const event of this.stream(said, options)) await onEvent(event);
    return /** @type {Answered} */ (this.answer);
  }
  /** The same for a loop; to leave it ends the turn. @param {string | Message} said @param {Options} [options]
   * @returns {AsyncGenerator<AgentEvent, void>} */
  async *stream(said, { signal } = {}, restarted = "") {
    this.answer = undefined;
    const message = /** @type {Message} */ (typeof said === "string" ? { role: "user", content: said } : said);
    const answered = /** @type {Answer} */ ({ role: "assistant", content: "", data: {} });
    const body = JSON.stringify({ messages: [...this.messages, message], data: { session: this.session } });
    const request = { method: "POST", headers: { "Content-Type": "application/json" }, body, signal };
    const response = await fetch(this.url, request).catch(failing("no-answer", signal));
    if (!response.ok) return yield* this.stream(message, { signal }, await this.#refused(response, restarted, signal));
    let [failure, meta_data] = /** @type {any[]} */ ([]);
    try {
      for await (const event of this.#eventsOf(response, signal)) {
        this.#adopt(event);
        const code = textOf(event.code, "error");
        if (event.type === "error" && !meta_data) failure ??= failed(code, textOf(event.error, code));
        if (failure) continue; // to the end: a session may follow
        gather(event, answered);
        if (event.type === "done" && !meta_data) this.messages.push(message, answered);
        if (event.type === "done") meta_data = event.meta_data || {};
        if (meta_data) this.answer = { ...answered, meta_data, restarted };
        yield event;
      }
    } catch (error) {
      if (!meta_data) throw failure ?? error; // what is answered stays answered
    }
    if (!meta_data) throw failure ?? failed(signal?.aborted ? "aborted" : "no-end");
  }
  /** Why to say the turn once more, and not twice: the session was dead, and nothing was done. Else an error. */
  async #refused(/** @type {Response} */ response, /** @type {string} */ restarted, /** @type {any} */ signal) {
    const problem = await response.json().catch(() => null); // what is no JSON says nothing of the session
    const isDead = response.status < 500 && this.#adopt(problem);
    if (signal?.aborted) throw failed("aborted");
    const code = textOf(problem?.code, `http-${response.status}`);
    if (isDead && !restarted) return code;
    throw failed(code, textOf(problem?.detail, code));
  }
  #adopt(/** @type {any} */ came) { // keeps a session, whatever came with it; does it say that the one before is dead?
    const token = came?.data?.session?.dcaf?.token;
    if (typeof token !== "string") return false;
    this.session = came.data.session;
    if (token === "new") for (const { data } of this.messages) delete data?.approvals; // which nobody can decide now
    return token === "new";
  }
  async *#eventsOf(/** @type {Response} */ response, /** @type {AbortSignal | undefined} */ signal) {
    const bytes = /** @type {any} */ (response.body ?? new Blob().stream());
    const reader = bytes.pipeThrough(new TextDecoderStream()).getReader();
    const cancel = () => reader.cancel().catch(() => {});
    let events = /** @type {any[]} */ ([]); // those that have arrived, and nobody has asked for yet
    signal?.addEventListener("abort", cancel);
    try {
      for (let begun = "", part = /** @type {any} */ ({}); !part.done; ) {
        part = await reader.read().catch(failing("broken-off", signal));
        const [first, ...lines] = (part.done ? "\n" : part.value).split("\n"); // of this part: a line is joined once
        lines.unshift(begun + first);
        begun = lines.pop();
        events = lines.filter((/** @type {string} */ line) => line.trim()).map(eventIn);
        while (events.length) {
          if (signal?.aborted) throw failed("aborted");
          if (!events[0]) throw failed(part.done ? "no-end" : "not-json");
          yield events.shift();
        }
      }
    } finally {
      signal?.removeEventListener("abort", cancel);
      cancel(); // whoever stops to listen ends the turn, and yet keeps the sessions that have arrived before its end
      const end = events.findIndex((event) => !event || ["done", "error"].includes(event.type));
      events.slice(0, end < 0 ? undefined : end).forEach((event) => event.type === "session" && this.#adopt(event));
    }
  }
}

function gather(/** @type {any} */ event, /** @type {any} */ answered) {
  const isWaiting = ["approvals", "tool_calls"].includes(event.type); // such a call may be told of again
  const found = [...listOf(answered.data[event.type]), ...listOf(event[event.type])];
  const items = [...new Map(found.map((item, at) => [isWaiting ? item?.id : at, item])).values()];
  const { session, ...data } = { ...answered.data, ...(items.length && { [event.type]: items }), ...event.data };
  answered.data = data;
  if (event.type === "text_delta") answered.content += textOf(event.text);
}
function eventIn(/** @type {string} */ line) {
  let event;
  try { event = JSON.parse(line); } catch {} // whose words would quote the line
  return typeof event?.type === "string" ? event : undefined;
}

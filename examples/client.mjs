/** @import { Answer, Answered, Approval, Message, Options, Session, TurnEvent } from "./protocol" */
const WORDS = "No whole answer came. The turn may have run: ask before you send it again.";
const LOST = ["no-answer", "broken-off", "no-end", "http-502", "http-504"]; // after these the turn may have run
const textOf = (/** @type {unknown} */ value, otherwise = "") => (typeof value === "string" && value) || otherwise;
const listOf = (/** @type {any} */ value) => (Array.isArray(value) ? value : []);
const failed = (code = "", words = "", more = {}) => Object.assign(new Error(textOf(words, code)), { code, ...more });
export class Conversation { // with an agent, over streams; it keeps the session
  session = /** @type {Session | undefined} */ (undefined); // data.session, as it came
  messages = /** @type {Message[]} */ ([]); // what was said and answered, without sessions
  answer = /** @type {Answered | undefined} */ (undefined); // of the last turn, once it is there
  history = "client"; // or "server", where the service keeps the messages for the agent, and is sent the new one alone
  constructor(/** @type {string} */ url) { this.url = `${url}/api/chat-stream`; }
  get waiting() { // the calls that wait for a person, as the answers tell: also where these were stored
    const calls = /** @type {Map<string, Approval>} */ (new Map());
    for (const { data } of this.messages.filter(({ role }) => role === "assistant")) {
      for (const call of listOf(data?.executed_approvals)) calls.delete(call?.id);
      for (const call of listOf(data?.approvals)) calls.set(call?.id, call);
    }
    return [...calls.values()].filter((call) => call?.id);
  }
  /** @param {string | Message} said @param {(event: TurnEvent) => unknown} [onEvent] @param {Options} [options] */
  async send(said, onEvent = () => {}, options = {}) { // one thing at a time
    for await (const event of this.stream(said, options)) await onEvent(event);
    return /** @type {Answered} */ (this.answer);
  }
  /** Events. @param {string | Message} said @param {Options} [options] @returns {AsyncGenerator<TurnEvent, void>} */
  async *stream(said, { signal } = {}, turn = /** @type {any} */ ({ sent: 1, pauses: [.2, .5, 1], rest: 10 })) {
    this.answer = undefined;
    const message = /** @type {Message} */ (typeof said === "string" ? { role: "user", content: said } : said);
    const answered = /** @type {Answer} */ ({ role: "assistant", content: "", data: {} });
    const before = this.history === "server" ? [] : this.messages;
    const body = JSON.stringify({ messages: [...before, message], data: { session: this.session } });
    const key = this.session?.dcaf?.retry && { "Idempotency-Key": `"${crypto.getRandomValues(new Uint32Array(4))}"` };
    turn.request ??= { method: "POST", headers: { "Content-Type": "application/json", ...key }, body, signal };
    let [response, failure, meta_data] = /** @type {any[]} */ ([]);
    try {
      response = await fetch(this.url, turn.request);
      for await (const event of response.ok ? this.#eventsOf(response, signal) : []) {
        this.#adopt(event);
        if (event.type === "error" && !meta_data) failure ??= failed(textOf(event.code, "error"), event.error);
        if (failure) continue; // to the end: a session may follow
        gather(event, answered);
        if (event.type === "done" && !meta_data) this.messages.push(message, answered);
        if (event.type === "done") meta_data = event.meta_data || {};
        if (meta_data) this.answer = { ...answered, meta_data, restarted: turn.restarted ?? "", attempts: turn.sent };
        yield event;
      }
    } catch (/** @type {any} */ cause) {
      failure ??= failed(textOf(cause?.code, response ? "broken-off" : "no-answer"), WORDS, { cause });
    }
    if (meta_data) return; // what is answered stays answered
    await this.#wait({ failure: failure ?? (response?.ok && failed("no-end", WORDS)), turn, response, signal });
    if (turn.request) yield { type: "again", attempt: turn.sent + 1 }; // what has come of this turn is void
    yield* this.stream(message, { signal }, { ...turn, sent: turn.sent + 1 });
  }
  /** Throws why a turn has no answer; or waits, where it can be sent once more and nothing is done twice. */
  async #wait(/** @type {any} */ { failure, turn, response, signal }) {
    const problem = failure ? null : await response.json().catch(() => null); // what is no JSON says nothing
    const isDead = response?.status < 500 && this.#adopt(problem) && !turn.restarted;
    const code = signal?.aborted ? "aborted" : failure?.code ?? textOf(problem?.code, `http-${response.status}`);
    const newer = problem?.data?.session?.dcaf, isKnown = "Idempotency-Key" in turn.request.headers;
    const asked = Number(response?.headers.get("Retry-After")) || 1; // in seconds
    const pause = isDead ? 0 : newer ? problem.applied === false && newer.retry && turn.pauses.shift()
      : code === "session-unavailable" ? (isKnown || problem?.ran === false) && turn.pauses.shift() && asked
      : code === "session-conflict" ? isKnown && problem && (turn.rest -= asked) >= 0 && asked // another turn runs
      : isKnown && LOST.includes(code) && turn.pauses.shift();
    const { message = problem?.detail, cause } = failure ?? {};
    if (typeof pause !== "number") throw failed(code, message, { cause, applied: problem?.applied });
    if (newer) [turn.request, turn.restarted] = [undefined, isDead ? code : turn.restarted]; // another body
    await new Promise((done) => (setTimeout(done, pause * 1000), signal?.addEventListener("abort", done)));
  }
  #adopt(/** @type {any} */ came) { // keeps a session, whatever came with it; does it say that the one before is dead?
    const token = came?.data?.session?.dcaf?.token;
    if (typeof token !== "string") return false;
    this.session = came.data.session;
    if (token === "new") for (const { data } of this.messages) delete data?.approvals; // which nobody can decide now
    return token === "new";
  }
  async *#eventsOf(/** @type {any} */ response, /** @type {AbortSignal | undefined} */ signal) {
    const reader = (response.body ?? new Blob().stream()).pipeThrough(new TextDecoderStream()).getReader();
    const cancel = () => reader.cancel().catch(() => {});
    let events = /** @type {any[]} */ ([]); // those that have arrived, and nobody has asked for yet
    signal?.addEventListener("abort", cancel);
    try {
      for (let begun = "", part = /** @type {any} */ ({}); !part.done; ) {
        part = await reader.read();
        const [first, ...lines] = (part.done ? "\n" : part.value).split("\n"); // of this part: a line is joined once
        lines.unshift(begun + first);
        begun = lines.pop();
        events = lines.filter((/** @type {string} */ line) => line.trim()).map(eventIn);
        while (events.length) {
          if (signal?.aborted || !events[0]) throw failed(part.done ? "no-end" : "not-json");
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
  try { const event = JSON.parse(line); if (typeof event?.type === "string") return event; } catch {} // never quoted
}

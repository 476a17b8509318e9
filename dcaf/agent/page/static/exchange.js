// @ts-check
// One request and what comes of it: the stream is read as it comes, and each session in it is handed on at once.
//
// What a reader gets wrong: nothing here throws. Why there is no answer is in the outcome, as a code and as a sentence.

import { isNew } from "./token.js";

/** @typedef {Record<string, any>} JSONObject */
/** @typedef {JSONObject & {dcaf?: {token?: string, expires_at?: number, retry?: boolean}}} Envelope What stands at `data.session`. */
/** @typedef {(event: JSONObject) => void} Watcher */
/** @typedef {(envelope: Envelope) => void} Adopter */

/**
 * What came of a body that was sent.
 * @typedef {object} Outcome
 * @property {number} status Of HTTP; 0 where nothing came.
 * @property {boolean} isAnswered Whether the last event came.
 * @property {string} code Why there is no answer: the service's code, or one of OWN; empty where there is one.
 * @property {string} detail The same for a person.
 * @property {string} text What the assistant said.
 * @property {JSONObject} data What came beside it, but for the session.
 * @property {Envelope | undefined} envelope The last session of the answer.
 * @property {boolean | "partial" | null} applied Of a refusal: whether the turn was done before; null where it does not say.
 * @property {boolean | null} ran Of a refusal: whether the turn had run.
 * @property {number | null} wait_ms How long a refusal asks to wait.
 */

/** @typedef {{messages: JSONObject[], memory: JSONObject, isTold: boolean}} Recalled What was said, what is remembered, and whether the service has told it. */

const WAITING = ["approvals", "tool_calls"];
const BROKEN = 500;
const UNSAID = { applied: null, ran: null, wait_ms: null };
export const OWN = /** @type {Record<string, string>} */ ({
  stopped: "You stopped it.",
  "no-answer": "The service did not answer.",
  "broken-off": "The answer broke off: the turn may have run.",
  "no-end": "The answer ended before the turn did, which may have run.",
  "not-json": "What came is not what an agent's service says.",
  "not-ended": "The service did not say that the session has ended.",
});

/**
 * Send a body and gather what comes; never throws.
 * @param {string} body
 * @param {Watcher} [watch] Told of each event as it comes.
 * @param {AbortSignal} [signal]
 * @param {Adopter} [adopt] Given each session as it comes.
 * @param {string} [key] By which the service knows the request again; empty for none.
 * @returns {Promise<Outcome>}
 */
export function exchange(body, watch = () => {}, signal = undefined, adopt = () => {}, key = "") {
  return post("api/chat-stream", { body, signal, key }, adopt, (response, outcome) => streamed(response, outcome, watch, adopt));
}

/**
 * Ask for the end of the session in a body; never throws.
 * @param {string} address
 * @param {string} body
 * @param {AbortSignal} signal
 * @param {Adopter} adopt
 * @returns {Promise<Outcome>} Answered where the service has told to begin a new session.
 */
export function end(address, body, signal, adopt) {
  return post(address, { body, signal }, adopt, async (response, outcome) => {
    arrived(read(await response.text().catch(() => "")), outcome, adopt);
    outcome.isAnswered = isNew(outcome.envelope);
    fail(outcome, "not-ended");
  });
}

/**
 * Ask for the conversation of the session in a body, and once more where that is an older one, for which the newer one came; never throws.
 * @param {() => string} request Gives the body.
 * @param {Adopter} adopt
 * @returns {Promise<Recalled>}
 */
export async function recall(request, adopt) {
  /** @type {Recalled} */
  const recalled = { messages: [], memory: {}, isTold: false };
  const ask = () => post("api/history", { body: request() }, adopt, async (response, outcome) => {
    const told = read(await response.text().catch(() => ""));
    arrived(told, outcome, adopt);
    recalled.messages = listOf(told.messages).map(objectOf);
    recalled.memory = objectOf(told.memory);
    recalled.isTold = Array.isArray(told.messages);
  });
  if ((await ask()).applied === false) await ask();
  return recalled;
}

/**
 * @param {string} address
 * @param {{body: string, signal?: AbortSignal, key?: string}} request
 * @param {Adopter} adopt
 * @param {(response: Response, outcome: Outcome) => Promise<void>} hear Reads what is no refusal.
 * @returns {Promise<Outcome>}
 */
async function post(address, { body, signal, key }, adopt, hear) {
  /** @type {Outcome} */
  const outcome = { status: 0, isAnswered: false, code: "", detail: "", text: "", data: {}, envelope: undefined, ...UNSAID };
  try {
    const headers = { "Content-Type": "application/json", ...(key && { "Idempotency-Key": key }) };
    const response = await fetch(address, { method: "POST", headers, body, signal });
    outcome.status = response.status;
    if (response.ok) await hear(response, outcome);
    else refused(read(await response.text().catch(() => "")), response, outcome, adopt, signal);
  } catch {
    fail(outcome, signal?.aborted ? "stopped" : outcome.status ? "broken-off" : "no-answer");
  }
  return outcome;
}

/** @param {Response} response @param {Outcome} outcome @param {Watcher} watch @param {Adopter} adopt */
async function streamed(response, outcome, watch, adopt) {
  for await (const line of lines(response)) {
    const event = read(line);
    if (typeof event.type !== "string") return fail(outcome, "not-json");
    gather(event, outcome);
    arrived(event, outcome, adopt);
    watch(event);
  }
  fail(outcome, "no-end");
}

/** @param {JSONObject} problem @param {Response} response @param {Outcome} outcome @param {Adopter} adopt @param {AbortSignal | undefined} signal */
function refused(problem, response, outcome, adopt, signal) {
  arrived(problem, outcome, adopt);
  outcome.applied = problem.applied ?? null;
  outcome.ran = problem.ran ?? null;
  outcome.wait_ms = Number(response.headers.get("Retry-After")) * 1000 || null;
  if (signal?.aborted) fail(outcome, "stopped");
  fail(outcome, textOf(problem.code) || `http-${outcome.status}`, textOf(problem.detail));
}

/** @param {JSONObject} event @param {Outcome} outcome */
function gather(event, outcome) {
  if (event.type === "error") return fail(outcome, textOf(event.code) || "error", textOf(event.error));
  if (event.type === "text_delta") outcome.text += textOf(event.text);
  if (event.type === "done") outcome.isAnswered ||= !outcome.code;
  const list = joined(event.type, listOf(outcome.data[event.type]), listOf(event[event.type]));
  outcome.data = { ...outcome.data, ...(list.length ? { [event.type]: list } : {}), ...objectOf(event.data) };
  delete outcome.data.session;
}

/** @param {string} type @param {any[]} before @param {any[]} more A list that came in several events; a call that waits may be told of again. */
function joined(type, before, more) {
  const all = [...before, ...more];
  return WAITING.includes(type) ? [...new Map(all.map((call) => [call?.id, call])).values()] : all;
}

/** @param {JSONObject} told @param {Outcome} outcome @param {Adopter} adopt Keep its session, unless the server says that it is broken. */
function arrived(told, outcome, adopt) {
  const { session } = objectOf(told.data);
  if (typeof session?.dcaf?.token !== "string" || outcome.status >= BROKEN) return;
  outcome.envelope = session;
  adopt(session);
}

/** @param {Outcome} outcome @param {string} code @param {string} detail Why there is no answer, unless there is one, or that is known. */
function fail(outcome, code, detail = OWN[code] ?? "") {
  if (outcome.isAnswered || outcome.code) return;
  outcome.code = code;
  outcome.detail = detail;
}

/** @param {Response} response The lines of a body. Whoever stops to read them ends the turn. */
async function* lines(response) {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let begun = "";
  try {
    for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
      const [first, ...rest] = part.value.split("\n"); // of this part alone, so that a long line is put together once
      const found = [begun + first, ...rest];
      begun = found.pop() ?? "";
      yield* found.filter((line) => line.trim());
    }
    if (begun.trim().endsWith("}")) yield begun;
  } finally {
    reader?.cancel().catch(() => {});
  }
}

/** @param {string} text @returns {JSONObject} The object that a text is; an empty one for anything else. */
function read(text) {
  try {
    return objectOf(JSON.parse(text));
  } catch {
    return {};
  }
}

/** @param {unknown} value @returns {JSONObject} */
function objectOf(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value : {};
}

/** @param {unknown} value @returns {any[]} */
function listOf(value) {
  return Array.isArray(value) ? value : [];
}

/** @param {unknown} value */
function textOf(value) {
  return typeof value === "string" ? value : "";
}

// @ts-check
// A conversation with an agent's service: it sends the session with every turn, and keeps the one that comes back.
//
// What a reader gets wrong: a session is kept as soon as it comes, also from a refusal; a turn counts when it has ended well.

import { sealed } from "./token.js";

/** @typedef {Record<string, any>} JSONObject */
/** @typedef {JSONObject & {dcaf?: {token?: string, expires_at?: number}}} Envelope What stands at `data.session`. */
/** @typedef {{role: string, content: string, data?: JSONObject}} Message */
/** @typedef {JSONObject & {type: string}} StreamEvent */

/**
 * What came of a body that was sent.
 * @typedef {object} Outcome
 * @property {number} status Of HTTP; 0 where nothing came.
 * @property {string} code Why it went wrong; empty where it did not.
 * @property {string} detail The same for a person.
 * @property {string} text What the assistant said.
 * @property {JSONObject} data What came beside it.
 * @property {Envelope | undefined} envelope The last session of the answer.
 */

/**
 * One turn that was answered.
 * @typedef {object} Turn
 * @property {number} number From 1 on, in the order of time.
 * @property {Turn | null} parent The turn that it went on from.
 * @property {string} said For a person.
 * @property {string} body What was sent, byte for byte.
 * @property {Message[]} messages The whole conversation after it.
 * @property {Envelope | undefined} before The session that went out.
 * @property {Envelope} envelope The session that came back.
 * @property {JSONObject[]} waiting The calls that wait for a person.
 * @property {Message} answer What the assistant said, and did.
 */

/** @typedef {(event: StreamEvent) => void} Watcher */

export const NEW = "new";

export class Conversation {
  /** @param {string} pointer Where a body names its conversation (RFC 6901). */
  constructor(pointer) {
    this.pointer = pointer;
    this.id = identifier();
    /** @type {Turn[]} */
    this.turns = [];
    /** @type {Turn | null} */
    this.here = null;
    /** @type {Envelope | undefined} */
    this.envelope = undefined;
    /** @type {JSONObject[]} */
    this.waiting = [];
  }

  /**
   * Say something, or decide about calls that wait.
   * @param {Message} message
   * @param {string} said For the list of turns.
   * @param {Watcher} watch Told of each event as it comes.
   * @param {AbortSignal} signal
   * @returns {Promise<Outcome>}
   */
  async send(message, said, watch, signal) {
    const messages = [...(this.here?.messages ?? []), message];
    const body = JSON.stringify(placed({ messages, data: this.envelope ? { session: this.envelope } : {} }, this.pointer, this.id));
    const before = this.envelope;
    const outcome = await exchange(body, watch, signal);
    if (outcome.envelope) this.envelope = outcome.envelope;
    if (isNew(this.envelope)) this.waiting = [];
    if (!outcome.code) this.#keep(message, said, body, messages, before, outcome);
    return outcome;
  }

  /** @param {Turn} turn Whose session and messages the next turn goes on from. */
  goTo(turn) {
    this.here = turn;
    this.envelope = turn.envelope;
    this.waiting = turn.waiting;
  }

  /** @param {Message} message @param {string} said @param {string} body @param {Message[]} messages @param {Envelope | undefined} before @param {Outcome} outcome */
  #keep(message, said, body, messages, before, outcome) {
    const { session, ...data } = outcome.data;
    const answer = { role: "assistant", content: outcome.text, data };
    const proposed = data.approvals ?? [];
    const settled = new Set([...(message.data?.approvals ?? []), ...proposed].map((/** @type {JSONObject} */ item) => item.id));
    const waiting = [...this.waiting.filter((item) => !settled.has(item.id)), ...proposed];
    const turn = {
      number: this.turns.length + 1, parent: this.here, said, body, messages: [...messages, answer], before,
      envelope: this.envelope ?? {}, waiting, answer,
    };
    this.turns.push(turn);
    this.goTo(turn);
  }
}

/**
 * Send a body and gather what comes; never throws.
 * @param {string} body
 * @param {Watcher} [watch]
 * @param {AbortSignal} [signal]
 * @returns {Promise<Outcome>}
 */
export async function exchange(body, watch = () => {}, signal = undefined) {
  /** @type {Outcome} */
  const outcome = { status: 0, code: "", detail: "", text: "", data: {}, envelope: undefined };
  try {
    const headers = { "Content-Type": "application/json" };
    const response = await fetch("api/chat-stream", { method: "POST", headers, body, signal });
    outcome.status = response.status;
    if (response.ok) await streamed(response, outcome, watch);
    else refused(outcome, await response.json().catch(() => ({})));
  } catch (error) {
    const stopped = signal?.aborted;
    outcome.code = stopped ? "stopped" : "no-answer";
    outcome.detail = stopped ? "You stopped it." : "The service did not answer to the end.";
  }
  return outcome;
}

/** @param {Envelope | undefined} envelope Whether it is the wish for a new session, which a service gives with its refusal. */
export function isNew(envelope) {
  return envelope?.dcaf?.token === NEW;
}

/** @param {Envelope | undefined} envelope The state as a client can read it: in a token that is only signed, and in the mirror. */
export function visible(envelope) {
  const { dcaf, ...mirror } = envelope ?? {};
  return { ...sealed(dcaf?.token), ...mirror };
}

/** @param {Response} response @param {Outcome} outcome @param {Watcher} watch */
async function streamed(response, outcome, watch) {
  let ended = false;
  for await (const line of lines(response)) {
    const event = JSON.parse(line);
    ended ||= event.type === "done";
    gather(event, outcome);
    watch(event);
  }
  if (!ended && !outcome.code) throw new Error("the stream broke off");
}

/** @param {StreamEvent} event @param {Outcome} outcome */
function gather(event, outcome) {
  const items = event[event.type];
  if (event.type === "text_delta") outcome.text += event.text;
  else if (event.type === "error") refused(outcome, event);
  else if (Array.isArray(items)) outcome.data[event.type] = [...(outcome.data[event.type] ?? []), ...items];
  Object.assign(outcome.data, event.data);
  outcome.envelope = event.data?.session ?? outcome.envelope;
}

/** @param {Outcome} outcome @param {JSONObject} told */
function refused(outcome, told) {
  outcome.code = told.code ?? `http-${outcome.status}`;
  outcome.detail = told.detail ?? told.error ?? "";
  outcome.envelope = told.data?.session ?? outcome.envelope;
}

/** @param {Response} response */
async function* lines(response) {
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    const found = (rest + read.value).split("\n");
    rest = found.pop() ?? "";
    yield* found.filter((line) => line.trim());
  }
  if (rest.trim()) yield rest;
}

/** @param {JSONObject} body @param {string} pointer @param {string} value The body with a value where a JSON pointer leads. */
function placed(body, pointer, value) {
  const names = pointer.split("/").slice(1).map((name) => name.replaceAll("~1", "/").replaceAll("~0", "~"));
  const last = names.pop() ?? "";
  let at = body;
  for (const name of names) at = at[name] ??= {};
  at[last] = value;
  return body;
}

/** A name of a conversation that nobody else has; also where `crypto.randomUUID` is not, outside secure contexts. */
function identifier() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// @ts-check
// A conversation with an agent's service: it sends the session with every turn, and keeps the one that comes back.
//
// What a reader gets wrong: a session is kept as soon as it comes, also from a refusal or a turn that fails later. A turn counts
// when it has been answered.

import { deliver } from "./again.js";
import { end, recall } from "./exchange.js";
import { isNew, isWaiting, sealed } from "./token.js";

/** @typedef {import("./exchange.js").JSONObject} JSONObject */
/** @typedef {import("./exchange.js").Envelope} Envelope */
/** @typedef {import("./exchange.js").Outcome} Outcome */
/** @typedef {import("./exchange.js").Watcher} Watcher */
/** @typedef {{role: string, content: string, data?: JSONObject}} Message */

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
 * @property {Message} answer What the assistant said, and did.
 * @property {number} [attempts] How often it was sent: more than once where an answer was lost.
 */

export class Conversation {
  /** @param {string} pointer Where a body names its conversation (RFC 6901). */
  constructor(pointer) {
    this.pointer = pointer;
    this.id = identifier();
    /** Whether the service keeps what was said, so that it is sent what is new. */
    this.isKept = false;
    /** @type {Turn[]} */
    this.turns = [];
    /** @type {Turn | null} */
    this.here = null;
    /** @type {Envelope | undefined} */
    this.envelope = undefined;
    /** @type {() => void} Told whenever there is something new to keep. */
    this.onChange = () => {};
  }

  /** The calls that wait for a person. */
  get waiting() {
    return waiting(this.here, this.envelope);
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
    const adopt = (/** @type {Envelope} */ envelope) => this.adopt(envelope);
    const asked = this.isKept ? [message] : messages;
    const { outcome, ...sent } = await deliver(() => this.#request(asked), watch, signal, adopt);
    if (outcome.isAnswered) this.#keep({ said, messages, ...sent }, { role: "assistant", content: outcome.text, data: outcome.data });
    return outcome;
  }

  /** Ask for what was said so far, where the service keeps it. @returns {Promise<import("./exchange.js").Recalled>} */
  recall() {
    return recall(() => this.#bearing(), (envelope) => this.adopt(envelope));
  }

  /** @param {string} address Where the service ends the session. @param {AbortSignal} signal */
  logOut(address, signal) {
    const body = this.#bearing();
    return end(address, body, signal, (envelope) => this.adopt(envelope));
  }

  /** A body that has the session, and the name of the conversation. */
  #bearing() {
    return JSON.stringify(placed({ data: { session: this.envelope } }, this.pointer, this.id));
  }

  /** @param {Message[]} messages What is sent, with the session of now. */
  #request(messages) {
    const data = this.envelope ? { session: this.envelope } : {};
    return { body: JSON.stringify(placed({ messages, data }, this.pointer, this.id)), before: this.envelope };
  }

  /** @param {Envelope} envelope The session of an answer, as it comes. */
  adopt(envelope) {
    this.envelope = envelope;
    this.onChange();
  }

  /** @param {Turn} turn Whose session and messages the next turn goes on from. */
  goTo(turn) {
    this.here = turn;
    this.adopt(turn.envelope);
  }

  /** @param {{said: string, body: string, before: Envelope | undefined, messages: Message[], attempts: number}} asked @param {Message} answer */
  #keep({ messages, ...asked }, answer) {
    const kept = { messages: [...messages, answer], answer, envelope: this.envelope ?? {} };
    const turn = { number: this.turns.length + 1, parent: this.here, ...asked, ...kept };
    this.turns.push(turn);
    this.goTo(turn);
  }

  /** What is kept of it, as JSON: each turn names its parent by number, and its answer stands in its messages. */
  toJSON() {
    const turns = this.turns.map(({ parent, answer, ...turn }) => ({ ...turn, parent: parent?.number ?? 0 }));
    return { pointer: this.pointer, id: this.id, turns, here: this.here?.number ?? 0, envelope: this.envelope };
  }

  /** @param {ReturnType<Conversation["toJSON"]>} kept @returns {Conversation} */
  static from({ pointer, id, turns, here, envelope }) {
    const found = Object.assign(new Conversation(pointer), { id, envelope });
    for (const { parent, ...turn } of turns) {
      found.turns.push({ ...turn, parent: found.turns[parent - 1] ?? null, answer: turn.messages[turn.messages.length - 1] });
    }
    found.here = found.turns[here - 1] ?? null;
    return found;
  }
}

/** @param {Turn | null} turn The turns from the first to this one. */
export function path(turn) {
  const found = [];
  for (let at = turn; at; at = at.parent) found.unshift(at);
  return found;
}

/**
 * The calls that wait for a person, by what is kept: those that the answers of this session propose, and that none of them has
 * told the end of. Where the token can be read, it has the last word, for a turn that was not answered may have decided too.
 * @param {Turn | null} turn The last one.
 * @param {Envelope | undefined} envelope The session.
 * @returns {JSONObject[]}
 */
export function waiting(turn, envelope) {
  const calls = new Map();
  for (const { before, answer } of path(turn)) {
    if (!before || isNew(before)) calls.clear();
    for (const call of items(answer, "executed_approvals")) calls.delete(call.id);
    for (const call of items(answer, "approvals")) calls.set(call.id, call);
  }
  return isNew(envelope) ? [] : [...calls.values()].filter(({ id }) => isWaiting(envelope?.dcaf?.token, id));
}

/** @param {Message} message @param {string} name @returns {JSONObject[]} What stands in a list beside its text, as far as it has ids. */
export function items({ data }, name) {
  const found = data?.[name];
  return Array.isArray(found) ? found.filter((item) => typeof item?.id === "string") : [];
}

/** @param {Envelope | undefined} envelope The state as a client can read it: in a token that is only signed, and in the mirror. */
export function visible(envelope) {
  const { dcaf, ...mirror } = envelope ?? {};
  return { ...sealed(dcaf?.token), ...mirror };
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

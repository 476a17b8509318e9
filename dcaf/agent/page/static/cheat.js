// @ts-check
// What a cheat would send, and what its answer means. Each attempt is sent for real.
//
// What a reader gets wrong: a refusal alone proves nothing. Only some codes are about the session; a server that is down says no too.

import { visible } from "./conversation.js";
import { forged, isEncrypted, isNew, read } from "./token.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./exchange.js").Envelope} Envelope */
/** @typedef {import("./exchange.js").Outcome} Outcome */
/** @typedef {import("./conversation.js").Turn} Turn */
/** @typedef {{level: string, restarts: boolean}} Service What it says of itself. */
/** @typedef {{isGood: boolean | null, answer: string, meaning: string}} Verdict Good, bad, or neither where the answer shows nothing. */

/**
 * @typedef {object} Attempt
 * @property {string} title
 * @property {string} sent For a person.
 * @property {string} body
 * @property {boolean} isHonest Whether its session is a good one, so that the one that comes back is the page's own.
 * @property {(outcome: Outcome) => Verdict} judge
 */

const UNSEALED = "The seal does not fit, so no tool saw it.";
const UNTOLD = "This service begins a new session instead of refusing, and its sessions are encrypted: the page cannot tell whether it did.";
const REFUSALS = /** @type {Record<string, string>} */ ({
  "session-conflict": "knows that the conversation has gone on since.",
  "session-superseded": "knows that the conversation has gone on since, and takes its newest session alone.",
  "session-ended": "knows that this session is over: its time has passed, or somebody ended it.",
  "session-invalid": "does not take its seal any longer: the key is another one now, or the user is.",
});
const KEPT = /** @type {Record<string, string>} */ ({
  L0: "keeps nothing (L0): every session that it ever sealed is good until it expires. A store that knows the newest one refuses this.",
  L1: "keeps one number a user (L1): every session that it ever sealed is good until it expires, or its user logs out. A store that knows the newest one refuses this.",
});

/** @param {Conversation} talk @param {Service} service @returns {Attempt} The state in the token, changed under the old seal. */
export function tampering(talk, service) {
  const envelope = talk.envelope ?? {};
  const token = envelope.dcaf?.token ?? "";
  const sent = isEncrypted(token) ? "One letter of the token changed." : 'The state in the token with "forged": true added, under the old seal.';
  const body = hello(talk, { ...envelope, dcaf: { ...envelope.dcaf, token: forged(token) } });
  return { title: "Tampered with the token", sent, body, isHonest: false, judge: (outcome) => unsealed(outcome, service) };
}

/** @param {Conversation} talk @returns {Attempt} The members beside the token. */
export function mirrored(talk) {
  const sent = 'The session with "forged": true beside the token.';
  return { title: "Edited the mirror", sent, body: hello(talk, { ...talk.envelope, forged: true }), isHonest: true, judge: ineffective };
}

/** @param {Turn} turn @param {Service} service @returns {Attempt} An older turn, once more. */
export function replayed(turn, service) {
  const sent = `Turn ${turn.number} once more, byte for byte: ${turn.said}`;
  return { title: `Replayed turn ${turn.number}`, sent, body: turn.body, isHonest: false, judge: (outcome) => again(outcome, turn, service) };
}

/** @param {Conversation} talk @param {Envelope} envelope */
function hello(talk, envelope) {
  const last = JSON.parse(talk.here?.body ?? "{}");
  const messages = [...(talk.here?.messages ?? []), { role: "user", content: "hello" }];
  return JSON.stringify({ ...last, messages, data: { ...last.data, session: envelope } });
}

/** @param {Outcome} outcome @param {Service} service @returns {Verdict} */
function unsealed(outcome, { restarts }) {
  if (outcome.code === "session-invalid") return verdict(true, refused(outcome), `${UNSEALED} It is so at every level.`);
  if (outcome.code) return unclear(outcome);
  if (!restarts || "forged" in visible(outcome.envelope)) return verdict(false, accepted(outcome), "This must not happen.");
  return verdict(true, `Started anew: ${outcome.status}`, `${UNSEALED} This service begins a new session instead of refusing.`);
}

/** @param {Outcome} outcome @returns {Verdict} */
function ineffective(outcome) {
  if (outcome.code) return unclear(outcome);
  if ("forged" in visible(outcome.envelope)) return verdict(false, accepted(outcome), "This must not happen.");
  return verdict(true, "Without effect", "What stands beside the token is for display. The service reads the token alone, at every level.");
}

/** @param {Outcome} outcome @param {Turn} turn @param {Service} service @returns {Verdict} */
function again(outcome, turn, { level, restarts }) {
  if (outcome.code in REFUSALS) return verdict(true, refused(outcome), `This service (${level}) ${REFUSALS[outcome.code]}`);
  if (outcome.code) return unclear(outcome);
  if (isAnother(turn.before, outcome.envelope)) return verdict(true, `Started anew: ${outcome.status}`, "This began a session of its own. It has nothing of yours.");
  if (restarts && isEncrypted(outcome.envelope?.dcaf?.token)) return verdict(null, accepted(outcome), UNTOLD);
  return verdict(false, accepted(outcome), `This service ${KEPT[level] ?? `(${level}) has a store that lets older turns in.`}`);
}

/** @param {Envelope | undefined} before @param {Envelope | undefined} after Whether a turn that went out with one and came back with the other began a session. */
function isAnother(before, after) {
  if (!before || isNew(before)) return true;
  const [old, now] = [before, after].map((envelope) => read(envelope?.dcaf?.token)?.claims?.sid);
  return old !== now;
}

/** @param {Outcome} outcome @returns {Verdict} An answer that has nothing to do with the attempt. */
function unclear(outcome) {
  return verdict(null, outcome.status >= 400 ? refused(outcome) : `Not answered: ${outcome.code}`, "This shows nothing of the session.");
}

/** @param {boolean | null} isGood @param {string} answer @param {string} meaning @returns {Verdict} */
function verdict(isGood, answer, meaning) {
  return { isGood, answer, meaning };
}

/** @param {Outcome} outcome */
function refused(outcome) {
  return `Refused: ${outcome.status} ${outcome.code}`;
}

/** @param {Outcome} outcome */
function accepted(outcome) {
  return `Accepted: ${outcome.status}`;
}

// @ts-check
// What a cheat would send, and what its answer means. Each attempt is sent for real, and nothing of its answer is kept.

import { mirror } from "./conversation.js";
import { forged, read } from "./token.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./conversation.js").Envelope} Envelope */
/** @typedef {import("./conversation.js").Outcome} Outcome */
/** @typedef {import("./conversation.js").Turn} Turn */
/** @typedef {{isGood: boolean, answer: string, meaning: string}} Verdict */

/**
 * @typedef {object} Attempt
 * @property {string} title
 * @property {string} sent For a person.
 * @property {string} body
 * @property {(outcome: Outcome) => Verdict} judge
 */

/** @param {Conversation} talk @returns {Attempt} The state in the token, changed under the old seal. */
export function tampering(talk) {
  const envelope = talk.envelope ?? {};
  const token = envelope.dcaf?.token ?? "";
  const sent = read(token)?.claims ? 'The state in the token with "forged": true added, under the old seal.' : "One letter of the token changed.";
  const body = hello(talk, { ...envelope, dcaf: { ...envelope.dcaf, token: forged(token) } });
  return { title: "Tampered with the token", sent, body, judge: (outcome) => refusal(outcome, "The seal does not fit, so no tool saw it. It is so at every level.") };
}

/** @param {Conversation} talk @returns {Attempt} The members beside the token. */
export function mirrored(talk) {
  const sent = 'The session with "forged": true beside the token.';
  return { title: "Edited the mirror", sent, body: hello(talk, { ...talk.envelope, forged: true }), judge: ineffective };
}

/** @param {Turn} turn @param {string} level Of the service. @returns {Attempt} An older turn, once more. */
export function replayed(turn, level) {
  const sent = `Turn ${turn.number} once more, byte for byte: ${turn.said}`;
  return { title: `Replayed turn ${turn.number}`, sent, body: turn.body, judge: (outcome) => again(outcome, level) };
}

/** @param {Conversation} talk @param {Envelope} envelope */
function hello(talk, envelope) {
  const last = JSON.parse(talk.here?.body ?? "{}");
  const messages = [...(talk.here?.messages ?? []), { role: "user", content: "hello" }];
  return JSON.stringify({ ...last, messages, data: { session: envelope } });
}

/** @param {Outcome} outcome @param {string} meaning @returns {Verdict} */
function refusal(outcome, meaning) {
  const isGood = outcome.code !== "";
  return { isGood, answer: answer(outcome), meaning: isGood ? meaning : "This must not happen." };
}

/** @param {Outcome} outcome @returns {Verdict} */
function ineffective(outcome) {
  const isGood = !outcome.code && !("forged" in mirror(outcome.envelope));
  const told = isGood ? "Without effect" : answer(outcome);
  return { isGood, answer: told, meaning: "What stands beside the token is for display. The service reads the token alone, at every level." };
}

/** @param {Outcome} outcome @param {string} level @returns {Verdict} */
function again(outcome, level) {
  if (outcome.code) return refusal(outcome, `This service (${level}) knows that it is not the newest turn.`);
  const meaning = `This service keeps nothing (${level}): every session that it ever sealed is good until it expires. A ledger (L2) refuses this.`;
  return { isGood: false, answer: answer(outcome), meaning };
}

/** @param {Outcome} outcome */
function answer(outcome) {
  return outcome.code ? `Refused: ${outcome.status} ${outcome.code}` : `Accepted: ${outcome.status}`;
}

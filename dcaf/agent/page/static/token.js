// @ts-check
// What a token says to whoever holds it, and what becomes of it in the hands of a cheat.
//
// What a reader gets wrong: nothing here is verified. Only the service has the key.

/** @typedef {{suite: string, kid: string, claims: Record<string, any> | null, pieces: string[]}} Token */

const NEW = "new";
const MEANINGS = /** @type {Record<string, (value: any, now: number) => string>} */ ({
  aud: () => "the service that it is for",
  sid: () => "name of the session, the same in all its turns",
  seq: () => "number of this state; each change counts one more",
  born: (value, now) => `began ${moment(value, now)}`,
  iat: (value, now) => `sealed ${moment(value, now)}`,
  exp: (value, now) => `ends ${moment(value, now)}`,
  sub: () => "bound to one user",
  cid: () => "bound to this conversation",
  sv: () => "version of the application's schema",
  at: () => "where the state is kept: not in the token",
  ep: () => "logouts of the user before it began",
  ix: () => "where each key stands in the state",
});
const UNITS = /** @type {const} */ ([["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]]);

/** @param {string | undefined} text @returns {Token | null} The parts of a token; its claims are null where they are encrypted. */
export function read(text) {
  const pieces = (text ?? "").split(".");
  if (pieces.length < 3) return null;
  const [suite, kid] = pieces;
  return { suite, kid, claims: suite === "dcaf1s" ? decoded(pieces[2]) : null, pieces };
}

/** @param {string | undefined} text @returns {Record<string, any>} The state in a token, without the library's own part; empty where nobody can read it. */
export function sealed(text) {
  const { dcaf, ...state } = (read(text)?.claims && decoded((text ?? "").split(".")[3])) || {};
  return state;
}

/** @param {{dcaf?: {token?: string}} | undefined} envelope Whether it is the wish for a new session, which a service gives with its refusal. */
export function isNew(envelope) {
  return envelope?.dcaf?.token === NEW;
}

/** @param {string | undefined} text @param {string} call Whether a call waits for a person, as far as the token tells: it may have no state. */
export function isWaiting(text, call) {
  const claims = read(text)?.claims;
  const state = claims && !claims.at && decoded((text ?? "").split(".")[3]);
  return state ? Object.hasOwn(state.dcaf?.approvals ?? {}, call) : true;
}

/** @param {string | undefined} text Whether there is a state that only the service can read. */
export function isEncrypted(text) {
  return read(text)?.claims === null;
}

/** @param {string} claim @param {any} value @param {number} now Seconds since the epoch. */
export function meaning(claim, value, now) {
  return MEANINGS[claim]?.(value, now) ?? "";
}

/** @param {number} seconds In words, rounded to the next smaller unit: "6 days and 23 hours". */
export function words(seconds) {
  const at = UNITS.findIndex(([, length]) => seconds >= length);
  if (at < 0) return "less than a second";
  const [, step] = UNITS[at + 1] ?? UNITS[at];
  const rounded = Math.round(seconds / step) * step;
  const [name, length] = UNITS.find(([, unit]) => rounded >= unit) ?? UNITS[at];
  const rest = Math.round((rounded % length) / step);
  return `${counted(Math.floor(rounded / length), name)}${rest ? ` and ${counted(rest, (UNITS[at + 1] ?? UNITS[at])[0])}` : ""}`;
}

/** @param {number} time @param {number} now Both in seconds since the epoch. */
export function moment(time, now) {
  return time > now ? `in ${words(time - now)}` : now - time < 1 ? "now" : `${words(now - time)} ago`;
}

/**
 * A token with another state under the old seal; where nobody can read the state, with one letter changed.
 * @param {string} text
 */
export function forged(text) {
  const pieces = text.split(".");
  const state = pieces[0] === "dcaf1s" ? decoded(pieces[3]) : null;
  const last = pieces.length - 1;
  if (state) pieces[3] = encoded({ ...state, forged: true });
  else pieces[last] = pieces[last].replace(/^./, (letter) => (letter === "A" ? "B" : "A"));
  return pieces.join(".");
}

/** @param {string} piece Unpadded base64url of a JSON object. */
function decoded(piece) {
  try {
    const binary = atob(piece.replaceAll("-", "+").replaceAll("_", "/"));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(binary, (letter) => letter.charCodeAt(0))), exact);
  } catch {
    return null;
  }
}

/** @param {string} _ @param {unknown} value @param {{source?: string}} [context] An integer that JavaScript would round is its digits, as in the mirror. */
function exact(_, value, context) {
  const isRounded = Number.isInteger(value) && !Number.isSafeInteger(value);
  return isRounded && /^-?\d+$/.test(context?.source ?? "") ? context?.source : value;
}

/** @param {unknown} value */
function encoded(value) {
  const binary = Array.from(new TextEncoder().encode(JSON.stringify(value)), (byte) => String.fromCharCode(byte)).join("");
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** @param {number} count @param {string} name */
function counted(count, name) {
  return `${count} ${name}${count === 1 ? "" : "s"}`;
}

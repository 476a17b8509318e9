// @ts-check
// A turn until it is answered: it is sent again where the service would know it, and nowhere else.
//
// What a reader gets wrong: a lost answer says nothing of its turn, which may have run. Only a session with the hint `retry` comes from a
// service that knows a request again. Without it the page sends again only what the service says that it did not begin.

import { exchange } from "./exchange.js";
import { isNew } from "./token.js";

/** @typedef {import("./exchange.js").JSONObject} JSONObject */
/** @typedef {import("./exchange.js").Envelope} Envelope */
/** @typedef {import("./exchange.js").Outcome} Outcome */
/** @typedef {{body: string, before: Envelope | undefined}} Request A body, and the session in it. */
/** @typedef {(milliseconds: number, signal: AbortSignal) => Promise<void>} Waiter */

const PAUSES_MS = [200, 500, 1000];
const PATIENCE_MS = 10_000;
const MOST_REFUSALS = 2;
const KEY_BYTES = 16;
const LOST = ["no-answer", "broken-off", "no-end", "http-502", "http-504"];

/**
 * Send a turn, and send it again as long as that does no harm; never throws.
 * @param {() => Request} make The request with the session that the page has now.
 * @param {import("./exchange.js").Watcher} watch Told of each event as it comes, and `again` where those of a lost answer are void.
 * @param {AbortSignal} signal
 * @param {import("./exchange.js").Adopter} adopt
 * @param {Waiter} [wait]
 * @returns {Promise<Request & {outcome: Outcome, attempts: number}>} What was sent last, what came of it, and how often it was sent.
 */
export async function deliver(make, watch, signal, adopt, wait = passed) {
  const tries = new Tries();
  let request = make();
  let key = keyFor(request);
  for (let attempts = 1; ; attempts++) {
    const outcome = await exchange(request.body, watch, signal, adopt, key);
    const next = signal.aborted ? null : tries.next(outcome, key !== "");
    if (!next) return { ...request, outcome, attempts };
    await wait(next.wait_ms, signal);
    watch({ type: "again" });
    if (next.isSame) continue;
    request = make();
    key = keyFor(request);
  }
}

/** How often one turn may still be sent. */
class Tries {
  #pauses = [...PAUSES_MS];
  #refusals = MOST_REFUSALS;
  #patience_ms = PATIENCE_MS;

  /** @param {Outcome} outcome @param {boolean} isKnown Whether the service knows the request again. @returns {{wait_ms: number, isSame: boolean} | null} */
  next(outcome, isKnown) {
    const { code, envelope, applied, ran, wait_ms } = outcome;
    if (outcome.isAnswered) return null;
    if (LOST.includes(code)) return isKnown ? this.#after(null, true) : null;
    if (code === "session-unavailable") return isKnown || ran === false ? this.#refused(wait_ms) : null;
    if (code !== "session-conflict") return null;
    if (envelope && !isNew(envelope)) return applied === false && envelope.dcaf?.retry ? this.#after(null, false) : null;
    return isKnown && wait_ms ? this.#busy(wait_ms) : null;
  }

  /** @param {number | null} wait_ms As long as the service asks, or else the next pause. @param {boolean} isSame */
  #after(wait_ms, isSame) {
    const pause = this.#pauses.shift();
    return pause === undefined || (wait_ms ?? 0) > PATIENCE_MS ? null : { wait_ms: wait_ms ?? pause, isSame };
  }

  /** @param {number | null} wait_ms A service that cannot tell, which is asked twice more. */
  #refused(wait_ms) {
    return this.#refusals-- > 0 ? this.#after(wait_ms, true) : null;
  }

  /** @param {number} wait_ms Another turn is in progress, perhaps the page's own lost one. */
  #busy(wait_ms) {
    this.#patience_ms -= wait_ms;
    return this.#patience_ms < 0 ? null : { wait_ms, isSame: true };
  }
}

/** @param {Request} request The Idempotency-Key of a request that the service would know again: 128 random bits, in quotes. */
function keyFor({ before }) {
  if (before?.dcaf?.retry !== true) return "";
  const bytes = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
  return `"${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}"`;
}

/** @type {Waiter} Over at once where the person stops it. */
function passed(milliseconds, signal) {
  return new Promise((done) => {
    setTimeout(done, milliseconds);
    signal.addEventListener("abort", () => done(), { once: true });
  });
}

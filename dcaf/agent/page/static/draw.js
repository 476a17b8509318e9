// @ts-check
// The pieces of the page: each function makes elements out of values, as text and never as markup.

import { rows } from "./changes.js";
import { items, visible, waiting } from "./conversation.js";
import { OWN } from "./exchange.js";
import { isEncrypted, isNew, meaning, moment, read, words } from "./token.js";

/** @typedef {import("./exchange.js").JSONObject} JSONObject */
/** @typedef {import("./exchange.js").Envelope} Envelope */
/** @typedef {import("./exchange.js").Outcome} Outcome */
/** @typedef {import("./conversation.js").Message} Message */
/** @typedef {import("./conversation.js").Turn} Turn */

const SKEW_S = 60;
const PARTS = /** @type {Record<string, string[]>} */ ({ dcaf1s: ["suite", "key id", "claims", "state", "seal"], dcaf1e: ["suite", "key id", "sealed box"] });
const SHOWN = 12;
const LONG = 300;
const TITLE = 80;

/**
 * An element with attributes and children; a text becomes a text node, an attribute that is undefined is left out.
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {Record<string, string | undefined>} attributes
 * @param {(Node | string)[]} children
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** @param {string} label @param {() => void} act @param {Record<string, string | undefined>} attributes */
export function button(label, act, attributes = {}) {
  const made = element("button", { type: "button", ...attributes }, label);
  made.addEventListener("click", act);
  return made;
}

/** @param {unknown} value As JSON, in one line; what would turn the direction of the text around it is escaped. */
function json(value) {
  const escaped = (/** @type {string} */ mark) => `\\u${mark.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return (JSON.stringify(value) ?? "").replace(/\p{Bidi_Control}/gu, escaped);
}

/** @param {string} text Its beginning, where it is longer than a person would read. */
function brief(text, most = LONG) {
  return text.length > most ? `${text.slice(0, most)}… (${text.length.toLocaleString("en")} characters)` : text;
}

/** @param {"user" | "assistant"} role @param {string} text */
export function message(role, text) {
  return element("article", { class: role }, element("h3", {}, role === "user" ? "You" : "Agent"), element("p", { dir: "auto" }, text));
}

/** @param {HTMLElement} article @param {Message} answer What came, its text too, which has ended. */
export function finish(article, answer) {
  const text = /** @type {HTMLElement} */ (article.querySelector("p"));
  text.normalize();
  article.append(...deeds(answer));
  if (!text.textContent) text.replaceWith(element("p", { class: "quiet" }, "No text."));
}

/** @param {Message} answer What was done beside its text, and what came of it where the text does not say so. */
function deeds(answer) {
  const calls = items(answer, "executed_tool_calls").map((call) => deed("called", call, answer.content));
  const decisions = items(answer, "executed_approvals").map((call) => deed("decided", call, answer.content));
  const found = [...calls, ...decisions];
  return found.length ? [element("ul", { "aria-label": "Tools" }, ...found)] : [];
}

/** @param {string} verb @param {JSONObject} call @param {string} text */
function deed(verb, call, text) {
  return element("li", {}, `${verb} `, element("code", {}, `${call.name} ${brief(json(call.input))}`), result(call, text));
}

/** @param {any} call @param {string} text What came of a call, unless it is the text, or a phrase of it. */
function result(call, text) {
  const output = String(call.output ?? "");
  const isSaid = text.trim() === output.trim() || (/\s/.test(output) && text.includes(output));
  return isSaid ? "" : `: ${brief(output)}`;
}

/** @param {JSONObject} item @param {(decision: JSONObject) => void} decide A call that waits for a person. */
export function approval(item, decide) {
  const reason = element("input", { value: "Not now" });
  return element(
    "div",
    { class: "card", role: "group", "aria-label": `Approval of ${item.name}` },
    element("p", { class: "box", role: "group", tabindex: "0", "aria-label": "The call" }, element("code", {}, `${item.name} ${json(item.input)}`)),
    element("p", {}, item.description ?? ""),
    element(
      "div",
      { class: "buttons" },
      button("Approve", () => decide({ execute: true, rejection_reason: null }), { class: "yes" }),
      button("Reject", () => decide({ execute: false, rejection_reason: reason.value || "Not now" })),
    ),
    element("label", {}, "Reason, if you reject", reason),
  );
}

/** @param {Envelope | undefined} before @param {Envelope | undefined} after The state, leaf by leaf, with what the turn did to it. */
export function state(before, after) {
  if (!after || isNew(after)) return [across("Nothing yet: the next turn begins a new session.")];
  const found = rows(visible(before), visible(after)).map((row) => element("tr", row.mark ? { class: "changed" } : {}, ...leaf(row)));
  const isSecret = isEncrypted(after.dcaf?.token);
  if (!found.length) return [across(isSecret ? "The service shows nothing of it: the state is encrypted." : "Empty.")];
  return isSecret ? [...found, across("The state is encrypted: there may be more than the service shows.")] : found;
}

/** @param {JSONObject} facts What is remembered, a row each. */
export function memory(facts) {
  const found = Object.entries(facts).map(([key, value]) =>
    element("tr", {}, element("th", { scope: "row" }, element("code", {}, key)), element("td", {}, element("code", {}, brief(json(value))))),
  );
  return found.length ? found : [element("tr", {}, element("td", { colspan: "2" }, "Nothing yet."))];
}

/** @param {string} text A row that says why there are no others. */
function across(text) {
  return element("tr", {}, element("td", { colspan: "3" }, text));
}

/** @param {import("./changes.js").Row} row */
function leaf(row) {
  const names = row.path.split(/(?=[.[])/).flatMap((name) => [document.createElement("wbr"), name]);
  const key = element("th", { scope: "row" }, element("code", {}, ...names));
  const [value, was] = [row.value, row.was].map((each) => element("code", {}, brief(json(each))));
  const shown = row.mark === "removed" ? element("del", {}, was) : value;
  const mark = row.mark === "changed" ? element("span", {}, "changed, was ", was) : row.mark;
  return [key, element("td", {}, shown), element("td", {}, mark)];
}

/** @param {Envelope | undefined} envelope @param {number} now */
export function claims(envelope, now) {
  const token = read(envelope?.dcaf?.token);
  if (!token?.claims) return [across("Encrypted too.")];
  return Object.entries(token.claims).map(([name, value]) =>
    element("tr", {}, element("th", { scope: "row" }, element("code", {}, name)), element("td", {}, element("code", {}, brief(json(value)))),
      element("td", {}, meaning(name, value, now))),
  );
}

/** @param {ParentNode} table @param {Envelope | undefined} envelope @param {number} now The claims that stand there, a moment later. */
export function age(table, envelope, now) {
  for (const [at, [name, value]] of Object.entries(read(envelope?.dcaf?.token)?.claims ?? {}).entries()) {
    const cell = table.querySelectorAll("td:last-child")[at];
    if (cell) settle(cell, meaning(name, value, now));
  }
}

/** @param {Element} place @param {string} text Written only where it is another, so that what a person has selected stays so. */
export function settle(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

/** @param {Envelope | undefined} envelope The token, part by part. */
export function parts(envelope) {
  const token = read(envelope?.dcaf?.token);
  return (PARTS[token?.suite ?? ""] ?? []).map((name, at) => {
    const piece = token?.pieces[at] ?? "";
    const start = piece.length > SHOWN ? `${piece.slice(0, SHOWN)}…` : piece;
    return element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, element("code", {}, start)), element("td", {}, String(piece.length)));
  });
}

/** @param {Envelope | undefined} envelope Who sealed it, and what that means. */
export function seal(envelope) {
  const token = read(envelope?.dcaf?.token);
  if (!token) return "";
  const means = token.claims ? "signed: you can read it, and not write it" : "encrypted: only the service can read it";
  return `Key ${token.kid}, ${token.suite}, ${means}.`;
}

/** @param {Envelope | undefined} envelope @param {number} now */
export function left(envelope, now) {
  const end = envelope?.dcaf?.expires_at;
  if (end === undefined) return "The service does not say.";
  if (now <= end) return `${words(end - now)}. Each turn starts this anew, until the session is older than the service allows.`;
  return `Over, ${moment(end, now)}. ${now <= end + SKEW_S ? "For a minute the service still takes it." : "The next turn is refused."}`;
}

/** @param {Turn} turn @param {import("./conversation.js").Conversation} talk @param {() => void} goOn A line of the history. */
export function turn(turn, talk, goOn) {
  const isHere = turn === talk.here;
  const isBranch = turn.parent !== (talk.turns[turn.number - 2] ?? null);
  const from = isBranch ? `, from ${turn.parent ? `turn ${turn.parent.number}` : "the start"}` : "";
  const { changes, waits } = lookedAt(turn);
  const count = changes || (isEncrypted(turn.envelope.dcaf?.token) ? "no visible" : "no");
  const told = `Turn ${turn.number}${from}: ${count} ${count === 1 ? "change" : "changes"}${waits ? ", a call waits" : ""}`;
  return element(
    "li",
    { "aria-current": isHere ? "step" : undefined, class: isHere ? "here" : undefined },
    element("div", {}, element("bdi", {}, brief(turn.said, TITLE)), element("br"), element("span", { class: "quiet" }, told)),
    isHere ? "You are here" : button("Continue from here", goOn, { "aria-label": `Continue from here: turn ${turn.number}, ${brief(turn.said, TITLE)}` }),
  );
}

/** @type {WeakMap<Turn, {changes: number, waits: boolean}>} */
const known = new WeakMap();

/** @param {Turn} turn How many leaves it changed, and whether a call waited after it; a turn stays as it was, so it is looked at once. */
function lookedAt(turn) {
  const found = known.get(turn) ?? {
    changes: rows(visible(turn.before), visible(turn.envelope)).filter((row) => row.mark).length,
    waits: waiting(turn, turn.envelope).length > 0,
  };
  known.set(turn, found);
  return found;
}

/** @param {Turn} turn A line of the list to choose from. */
export function option(turn) {
  return element("option", {}, `${turn.number}: ${brief(turn.said, TITLE)}`);
}

/** @param {string} title @param {string} sent @param {Outcome} outcome @param {import("./cheat.js").Verdict} verdict */
export function verdict(title, sent, outcome, { isGood, answer, meaning }) {
  return element(
    "div",
    { class: "card" },
    element("h3", {}, title),
    element("p", { class: isGood === null ? "quiet" : isGood ? "good" : "bad" }, answer),
    element("dl", {}, fact("Sent", sent), ...came(outcome, isGood !== null).map(([name, text]) => fact(name, text))),
    element("p", {}, meaning),
  );
}

/** @param {Outcome} outcome @param {boolean} isKnown What came back, for a person, where neither the code nor the page says the same. */
function came(outcome, isKnown) {
  if (outcome.code) return isKnown || outcome.code in OWN || !outcome.detail ? [] : [["Answer", outcome.detail]];
  return [["Answer", brief(outcome.text)], ["State", brief(json(visible(outcome.envelope)))]];
}

/** @param {string} name @param {string} text */
function fact(name, text) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, text));
}

// @ts-check
// The chat page: what a person does goes out as a turn, and what comes back is drawn.

import { mirrored, replayed, tampering } from "./cheat.js";
import { Conversation, items, path, visible } from "./conversation.js";
import * as draw from "./draw.js";
import { exchange, OWN } from "./exchange.js";
import { keep, restored } from "./kept.js";
import { isNew } from "./token.js";

/** @typedef {import("./cheat.js").Attempt} Attempt */
/** @typedef {import("./exchange.js").Envelope} Envelope */
/** @typedef {import("./exchange.js").JSONObject} JSONObject */
/** @typedef {import("./conversation.js").Message} Message */
/** @typedef {import("./exchange.js").Outcome} Outcome */
/** @typedef {import("./conversation.js").Turn} Turn */
/** @typedef {{title: string, suggestions: string[], max_token_bytes: number, conversation: string, log_out: string, history: string, memory: boolean}} Told */
/** @typedef {import("./cheat.js").Service & Told} Settings */

/** @param {string} id @returns {any} */
const the = (id) => document.getElementById(id);
const now = () => Date.now() / 1000;
const NEAR_PX = 40;
const MOST_VERDICTS = 3;
const KEPT = "It is kept on the server. What goes out with every message, and comes back, says under a seal which one it is.";
const WIDE = matchMedia("(min-width: 45rem)");

let settings = /** @type {Settings} */ ({});
let talk = new Conversation("");
/** @type {AbortController | null} What can be stopped. */
let running = null;

/* Turns */

/** @param {Message} message @param {string} said */
async function take(message, said) {
  const mine = talk;
  const before = talk.envelope;
  const live = draw.message("assistant", "");
  const shown = [draw.message("user", said), live];
  notify("");
  append(shown);
  const outcome = await alone((signal) => mine.send(message, said, (event) => arrived(event, live), signal));
  if (talk !== mine) return;
  if (outcome.code) failed(outcome, message, shown, before);
  else finished(live);
  drawSession();
  drawTurns();
  refocus(the("said"));
  if (settings.memory) await drawMemory(mine);
}

/** @param {(signal: AbortSignal) => Promise<Outcome>} act What the person waits for; nothing else goes out meanwhile. */
async function alone(act) {
  running = new AbortController();
  the("log").setAttribute("aria-busy", "true");
  drawButtons();
  const outcome = await act(running.signal);
  running = null;
  the("log").setAttribute("aria-busy", "false");
  drawButtons();
  return outcome;
}

/** @param {HTMLElement} place Where the focus goes, if it was on a button that went away, or was off for a while. */
function refocus(place) {
  if (document.activeElement === document.body) place.focus();
}

/** @param {JSONObject} event @param {HTMLElement} live */
function arrived(event, live) {
  const text = typeof event.text === "string" ? event.text : "";
  if (event.type === "text_delta") following(() => live.querySelector("p")?.append(text));
  if (event.type === "intermittent_update") notify(text);
  if (event.type === "again") startAgain(live);
}

/** @param {HTMLElement} live What came of an answer that was lost is void. */
function startAgain(live) {
  live.querySelector("p")?.replaceChildren();
  notify("No whole answer came. The page sends the turn again: this service does it once.");
}

/** @param {HTMLElement} live */
function finished(live) {
  const turn = /** @type {Turn} */ (talk.here);
  following(() => draw.finish(live, turn.answer));
  const times = (turn.attempts ?? 1) > 1 ? [`Sent ${turn.attempts} times, and done once.`] : [];
  notify([...times, waitingWords()].join(" ").trim());
}

/** What a person is told of the calls that wait. */
function waitingWords() {
  const count = talk.waiting.length;
  return count > 1 ? `${count} calls wait for you.` : count ? "A call waits for you." : "";
}

/** @param {Outcome} outcome @param {Message} message @param {HTMLElement[]} shown @param {Envelope | undefined} before */
function failed(outcome, message, shown, before) {
  if (outcome.applied) return done(outcome, message, shown);
  for (const article of shown) article.remove();
  the("said").value ||= message.content;
  const code = outcome.code in OWN ? [] : [`Not answered: ${outcome.code}.`];
  const restored = message.content ? ["What you wrote is in the box again."] : [];
  notify([...code, ...became(outcome, before), ...taken(message), ...restored].join(" "));
}

/** @param {Outcome} outcome @param {Message} message @param {HTMLElement[]} shown The turn was done, and what it said was lost on the way. */
function done({ applied }, message, shown) {
  const what = applied === true ? "This turn was done, and what it said was lost on the way." : "This turn was begun, and did not come to its end.";
  following(() => shown[1].querySelector("p")?.replaceChildren(what));
  notify([what, "The session is the newest one: go on.", ...taken(message)].join(" "));
}

/** @param {Outcome} outcome @param {Envelope | undefined} before Why a turn failed, and what became of the session: the service may say both itself. */
function became({ code, detail }, before) {
  const why = code in OWN ? [detail] : [];
  if (isNew(talk.envelope)) return [...why, "What the tools remembered is gone, and the next turn begins a new session."];
  if (before?.dcaf?.token !== talk.envelope?.dcaf?.token) return [...why, "A newer session came all the same, and is kept."];
  return code in OWN || !detail ? [...why, "The session is as before."] : [detail];
}

/** @param {Message} message Whether what it decides about waits no longer, although it was not answered. */
function taken(message) {
  const waits = new Set(talk.waiting.map((call) => call.id));
  const isOver = items(message, "approvals").some((call) => !waits.has(call.id));
  return isOver && !isNew(talk.envelope) ? ["What you decided about waits no longer."] : [];
}

/** @param {string} text */
function say(text) {
  if (running || !text.trim()) return;
  the("said").value = "";
  take({ role: "user", content: text }, text);
}

/** @param {JSONObject} item @param {JSONObject} decision */
function decide(item, decision) {
  if (running) return;
  const said = decision.execute ? `(approves ${item.name})` : `(rejects ${item.name}: ${decision.rejection_reason})`;
  take({ role: "user", content: "", data: { approvals: [{ ...item, ...decision }] } }, said);
}

/** @param {Turn} turn */
function goTo(turn) {
  talk.goTo(turn);
  notify(`You go on from turn ${turn.number}: its messages, and the session that it left.`);
  drawAll();
  the("said").focus();
}

function startOver() {
  running?.abort();
  begin(new Conversation(settings.conversation));
  keep(talk);
  notify("A new conversation, without a session.");
  the("verdict").replaceChildren();
  the("memory").replaceChildren(...draw.memory({}));
  drawAll();
  the("said").focus();
}

async function logOut() {
  const mine = talk;
  const before = talk.envelope;
  const outcome = await alone((signal) => mine.logOut(settings.log_out, signal));
  if (talk !== mine) return;
  notify(outcome.isAnswered ? endedWords() : `Not logged out${outcome.code in OWN ? "" : `: ${outcome.code}`}. ${became(outcome, before).join(" ")}`);
  drawSession();
  drawTurns();
  refocus(the("said"));
}

/** What a person is told of a session that has ended: where the service keeps nothing, only the page has dropped it. */
function endedWords() {
  const refused = settings.restarts ? "that it has nothing of yours" : "it refused";
  const older = settings.level === "L0" ? "This service keeps nothing (L0): a copy is good until it expires." : `Replay an older turn that carried it, to see ${refused}.`;
  return `Logged out: the session has ended. ${older} The next message begins a new session.`;
}

/** @param {() => Attempt} attempt */
async function cheat(attempt) {
  const mine = talk;
  const pressed = /** @type {HTMLElement} */ (document.activeElement);
  const { title, sent, body, isHonest, judge } = attempt();
  const outcome = await alone((signal) => exchange(body, undefined, signal));
  if (talk !== mine) return;
  the("verdict").prepend(draw.verdict(title, sent, outcome, judge(outcome)));
  the("verdict").children[MOST_VERDICTS]?.remove();
  if (isHonest) goOn(outcome.envelope);
  refocus(pressed);
}

/** @param {Envelope | undefined} envelope The page's own session, which a turn that is not in the list has moved on. */
function goOn(envelope) {
  if (envelope) talk.adopt(envelope);
  drawSession();
}

/* Drawing */

function drawAll() {
  const shown = path(talk.here).flatMap((turn) => [draw.message("user", turn.said), answered(turn)]);
  the("log").setAttribute("aria-live", "off");
  the("log").replaceChildren(...shown);
  toEnd();
  drawSession();
  drawTurns();
}

/** @param {Turn} turn */
function answered(turn) {
  const made = draw.message("assistant", turn.answer.content);
  draw.finish(made, turn.answer);
  return made;
}

/** @param {Node[]} made */
function append(made) {
  the("log").setAttribute("aria-live", "polite");
  the("log").append(...made);
  toEnd();
}

/** @param {() => void} write At the log's end, which stays in sight unless the person has scrolled away from it. */
function following(write) {
  const isAtEnd = nearEnd();
  write();
  if (isAtEnd) toEnd();
}

function nearEnd() {
  const { scrollHeight, scrollTop, clientHeight } = the("log");
  return scrollHeight - scrollTop - clientHeight < NEAR_PX;
}

function toEnd() {
  the("log").scrollTop = the("log").scrollHeight;
}

/** What stands around the log grows and shrinks, and so does the log: its end stays in sight then too. */
function followSize() {
  let isAtEnd = true;
  the("log").addEventListener("scroll", () => (isAtEnd = nearEnd()));
  new ResizeObserver(() => isAtEnd && toEnd()).observe(the("log"));
}

/** @param {HTMLElement} list @param {Element | null} item Scroll the list, and nothing around it, to the item. */
function reveal(list, item) {
  if (item) list.scrollTop += item.getBoundingClientRect().top - list.getBoundingClientRect().top - list.clientHeight / 3;
}

/** @param {string} text */
function notify(text) {
  the("notice").textContent = text;
}

function drawSession() {
  const isThere = talk.envelope !== undefined && !isNew(talk.envelope);
  const size = isThere ? (talk.envelope?.dcaf?.token?.length ?? 0) : 0;
  the("sealed").hidden = !isThere;
  the("state").replaceChildren(...draw.state(talk.here?.before, talk.envelope));
  reveal(the("values"), the("state").querySelector(".changed"));
  the("claims").replaceChildren(...draw.claims(talk.envelope, now()));
  the("parts").replaceChildren(...draw.parts(talk.envelope));
  the("seal").textContent = draw.seal(talk.envelope);
  the("envelope").textContent = JSON.stringify(talk.envelope ?? null, null, 2);
  the("size").textContent = `${size.toLocaleString("en")} of ${settings.max_token_bytes.toLocaleString("en")} bytes`;
  the("meter").value = size;
  drawTimes();
}

/** @param {Conversation} mine What the user remembers now, unless another conversation is shown when the service has told. */
async function drawMemory(mine) {
  const { memory, isTold } = await recalled(mine);
  if (isTold && talk === mine) the("memory").replaceChildren(...draw.memory(memory));
}

/** What the service keeps of the conversation, in place of what this tab has kept of it. */
async function drawHistory() {
  const mine = talk;
  const { messages, memory, isTold } = await recalled(mine);
  if (!isTold || talk !== mine || running) return;
  the("log").setAttribute("aria-live", "off");
  the("log").replaceChildren(...messages.map(spoken));
  the("memory").replaceChildren(...draw.memory(memory));
  toEnd();
}

/** @param {Conversation} mine Nothing is asked where there is no session yet. */
function recalled(mine) {
  const isThere = mine.envelope !== undefined && !isNew(mine.envelope);
  return isThere ? mine.recall() : Promise.resolve({ messages: [], memory: {}, isTold: false });
}

/** @param {import("./exchange.js").JSONObject} said A message that the service keeps. */
function spoken(said) {
  const message = /** @type {Message} */ ({ role: "user", content: "", ...said });
  const made = draw.message(message.role === "assistant" ? "assistant" : "user", message.content);
  if (message.role === "assistant") draw.finish(made, message);
  return made;
}

function drawTimes() {
  draw.settle(the("left"), draw.left(talk.envelope, now()));
  draw.age(the("claims"), talk.envelope, now());
}

function drawTurns() {
  the("waiting").replaceChildren(...talk.waiting.map((item) => draw.approval(item, (decision) => decide(item, decision))));
  the("turns").replaceChildren(...talk.turns.map((turn) => draw.turn(turn, talk, () => goTo(turn))));
  reveal(the("turns"), the("turns").querySelector(".here"));
  the("which").replaceChildren(...talk.turns.map(draw.option));
  the("which").selectedIndex = Math.max(0, talk.turns.length - (isNew(talk.envelope) ? 1 : 2));
  drawButtons();
}

function drawButtons() {
  const isBusy = running !== null;
  const isEmpty = !talk.envelope || isNew(talk.envelope);
  the("stop").hidden = !isBusy;
  for (const button of document.querySelectorAll("button, select")) {
    /** @type {HTMLButtonElement} */ (button).disabled = isBusy && !["stop", "over"].includes(button.id);
  }
  for (const id of ["tamper", "mirror", "leave"]) the(id).disabled ||= isEmpty;
  for (const id of ["replay", "which"]) the(id).disabled ||= !talk.turns.length;
}

/* The beginning */

/** @param {KeyboardEvent} event Enter sends, but not while an input method composes. */
function entered(event) {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  say(the("said").value);
}

/** @param {Event} event */
function submitted(event) {
  event.preventDefault();
  say(the("said").value);
}

function listen() {
  WIDE.addEventListener("change", unfold);
  the("form").addEventListener("submit", submitted);
  the("said").addEventListener("keydown", entered);
  the("stop").addEventListener("click", () => running?.abort());
  the("over").addEventListener("click", startOver);
  the("leave").addEventListener("click", logOut);
  the("tamper").addEventListener("click", () => cheat(() => tampering(talk, settings)));
  the("mirror").addEventListener("click", () => cheat(() => mirrored(talk)));
  the("replay").addEventListener("click", () => cheat(() => replayed(talk.turns[the("which").selectedIndex], settings)));
}

/** @param {Conversation} conversation The one that is shown from now on. */
function begin(conversation) {
  talk = conversation;
  talk.isKept = settings.history === "server";
  talk.onChange = () => keep(talk);
}

/** What is behind the conversation is open where there is room beside it, and can be opened everywhere. */
function unfold() {
  for (const details of document.querySelectorAll("details")) details.open = WIDE.matches;
}

async function load() {
  settings = await (await fetch("page/settings")).json();
  begin(restored(settings.conversation));
  document.title = the("title").textContent = settings.title;
  the("level").textContent = settings.level;
  the("meter").max = settings.max_token_bytes;
  document.querySelector(`#levels tr[data-level="${CSS.escape(settings.level)}"]`)?.classList.add("here");
  the("suggestions").replaceChildren(...settings.suggestions.map((text) => draw.button(text, () => say(text))));
  the("could").hidden = !settings.suggestions.length;
  the("leave").hidden = !settings.log_out;
  if (settings.level === "L3") the("where").textContent = KEPT;
  the("remembered").hidden = !settings.memory;
  the("memory").replaceChildren(...draw.memory({}));
  notify(waitingWords());
  unfold();
  followSize();
  listen();
  setInterval(drawTimes, 1000);
  drawAll();
  if (talk.isKept) await drawHistory();
}

load().catch(() => notify("The service does not answer. Load the page again."));

// What can be checked of whole exchanges without a framework, by docs/protocol.md: node wire.mjs vectors.json
// One JSON line a vector: its candidate, the claims and states that went out, and what was found to be otherwise than the document says.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { isObject, openToken, readClaims, utf8 } from "./open.mjs";
const file = JSON.parse(readFileSync(process.argv[2], "utf-8"));
const TOKEN = /dcaf1[se]\.[A-Za-z0-9]{1,16}\.[\w.-]{54,}/g;
const attempt = (make) => { try { return make(); } catch { return undefined; } };
function textOf(vector, key) {
  if (vector[`${key}_parts`]) return vector[`${key}_parts`].map(([part, times]) => part.repeat(times)).join("");
  const bytes = vector[`${key}_base64`];
  return bytes === undefined ? vector[key] : Buffer.from(bytes, "base64").toString("latin1");
}
const isCandidate = (value) => value !== undefined && value !== null && !(isObject(value) && Object.keys(value).length === 0);
const sessionIn = (holder) => (isObject(holder) && isObject(holder.data) ? holder.data.session : undefined);
function findCandidate(text) { // section 2: the top first, then the messages from the last one backwards
  const body = attempt(() => JSON.parse(text));
  if (!isObject(body)) return [null];
  if (isCandidate(sessionIn(body))) return ["/data/session", sessionIn(body)];
  const messages = Array.isArray(body.messages) ? body.messages : [];
  const at = messages.findLastIndex((message) => isCandidate(sessionIn(message)));
  return at < 0 ? [null] : [`/messages/${at}/data/session`, sessionIn(messages[at])];
}
function opened(token, service) {
  const [, claims, state] = openToken(token, { suites: ["dcaf1s", "dcaf1e"], ...service });
  return { claims: utf8(claims), state: utf8(state) };
}
// Section 1: integers that a double does not hold are strings in the mirror, and without the library's own member
const PART = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
const isOf64Bits = (integer) => integer >= -(2n ** 63n) && integer < 2n ** 64n; // what is larger is a double to the library
const isLong = (part) => /^-?\d+$/.test(part) && !Number.isSafeInteger(Number(part)) && isOf64Bits(BigInt(part));
function shown(state, mirror) {
  const { dcaf, ...members } = JSON.parse(state.replace(PART, (part) => (isLong(part) ? `"${part}"` : part)));
  const names = Object.keys(members).filter((name) => (Array.isArray(mirror) ? mirror.includes(name) : mirror));
  return JSON.stringify(names.map((name) => [name, members[name]]).sort());
}
function rewritten(text, candidate, service, reads) { // section 2: the state at the place of the candidate, and no other session
  const body = attempt(() => JSON.parse(text));
  if (!isObject(body)) return text;
  for (const holder of [body, ...(Array.isArray(body.messages) ? body.messages : [])])
    if (isObject(holder) && isObject(holder.data)) delete holder.data.session;
  const carries = service.carriers === undefined || service.carriers.includes("body");
  if (candidate === null || !carries) return JSON.stringify(sorted(body));
  const state = Object.entries(JSON.parse(reads)).filter(([name]) => !service.encrypt || (service.mirror ?? []).includes(name));
  const [, ...steps] = candidate.split("/");
  steps.slice(0, -1).reduce((value, step) => value[step], body).session = Object.fromEntries(state);
  return JSON.stringify(sorted(body));
}
const sorted = (value) => // members in one order, so that two texts can be compared
  Array.isArray(value) ? value.map(sorted)
    : isObject(value) ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)).map(([k, v]) => [k, sorted(v)]))
      : value;
function checkEnvelope(session, service, problems) {
  const { dcaf: { token, expires_at, restarted, retry, ...others }, ...mirror } = session;
  const { claims, state } = opened(token, service);
  if (expires_at !== JSON.parse(claims).exp) problems.push("expires_at is not the claim exp");
  if (Object.keys(others).length > 0) problems.push("an unknown hint");
  if (restarted !== undefined && service.on_refused !== "restart") problems.push("restarted, where nothing restarts");
  const wanted = service.store?.place ? undefined : shown(state, service.mirror ?? !token.startsWith("dcaf1e"));
  if (wanted !== undefined && JSON.stringify(Object.entries(mirror).sort()) !== wanted) problems.push("the mirror is not the state");
}
function checkClaims(text, vector, service, problems) { // a session that began here has the id of the vector's randomness
  const claims = readClaims(Buffer.from(text));
  if (claims.born !== Math.floor(service.now)) return;
  const ids = [1, 2, 3].map((n) => createHash("sha256").update(`dcaf vectors 1: session ${n} of ${vector.name}`).digest());
  if (!ids.some((id) => id.subarray(0, 16).toString("base64url") === claims.sid)) problems.push("another session id");
  if (claims.exp !== Math.min(claims.iat + service.idle, claims.born + service.absolute)) problems.push("another end");
}
function textsOf(text) { // a whole answer, or the lines of a stream
  const lines = text.split("\n").map((line) => line.replace(/^data: /, ""));
  return [text, ...lines].map((line) => attempt(() => JSON.parse(line))).filter(isObject);
}
function examine(vector, came, inbound, outbound) {
  const service = { ...file.service, ...vector.service }, problems = [];
  const texts = outbound.map((text) => text ?? "");
  const tokens = [...new Set(texts.flatMap((text) => text.match(TOKEN) ?? []))];
  const sealed = tokens.map((token) => opened(token, service));
  for (const { claims } of sealed) checkClaims(claims, vector, service, problems);
  for (const value of texts.flatMap(textsOf)) {
    const session = sessionIn(value);
    if (isObject(session) && session.dcaf?.token?.startsWith("dcaf1")) checkEnvelope(session, service, problems);
  }
  const [candidate, value] = findCandidate(inbound);
  if (candidate !== null && came.reads !== undefined && !service.store?.state && value.dcaf?.token?.startsWith("dcaf1")) {
    const { state } = attempt(() => opened(value.dcaf.token, service)) ?? {};
    if (state && !service.on_refused && shown(state, true) !== shown(came.reads, true)) problems.push("another state was read");
  }
  if (came.reads !== undefined) {
    const text = textOf(came, "application");
    const read = attempt(() => JSON.stringify(sorted(JSON.parse(text)))) ?? text;
    if (read !== rewritten(inbound, candidate, service, came.reads)) problems.push("another body was read");
  }
  return { candidate, sealed, problems };
}
for (const vector of file.vectors) {
  if (vector.turns === undefined) {
    const found = vector.client ? [...vector.client.headers.map(([, value]) => value), textOf(vector.client, "body")] : [];
    console.log(JSON.stringify({ name: vector.name, ...examine(vector, vector, textOf(vector, "body"), found) }));
    continue;
  }
  const turns = vector.turns.map((turn) => examine(vector, turn, textOf(turn, "frame"), turn.client.map((one) => textOf(one, "frame"))));
  console.log(JSON.stringify({ name: vector.name, turns }));
}

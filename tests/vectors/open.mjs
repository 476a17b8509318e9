// An opener of dcaf tokens in another language, written from docs/protocol.md alone: node open.mjs vectors.json
// One JSON line a vector: {"name","accepted":true,"claims","state"} or {"name","accepted":false,"code","reason"}.
import { createCipheriv, createDecipheriv, createHash, createHmac, hkdfSync, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
const SKEW = 60, DEFAULT_LIMIT = 256 * 1024;
const SHAPES = {
  dcaf1s: /^dcaf1s\.([A-Za-z0-9]{1,16})\.([A-Za-z0-9_-]{2,})\.([A-Za-z0-9_-]{3,})\.([A-Za-z0-9_-]{43})$/,
  dcaf1e: /^dcaf1e\.([A-Za-z0-9]{1,16})\.([A-Za-z0-9_-]{54,})$/,
};
class Refused extends Error { constructor(reason, code = "session-invalid") { super(); Object.assign(this, { reason, code }); } }
const check = (holds, reason, code) => { if (!holds) throw new Refused(reason, code); };
const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const attempt = (make, reason) => { try { return make(); } catch { throw new Refused(reason); } };
const utf8 = (bytes) => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
const length = (size) => Buffer.from(size.toString(16).padStart(8, "0"), "hex"); // four bytes, big-endian
const prefixed = (...texts) => Buffer.concat(texts.flatMap((text) => [length(Buffer.byteLength(text)), Buffer.from(text)]));
const mac = (secret, data) => createHmac("sha256", secret).update(data).digest();
function readKey(text) {
  const [, body, kid, secret, sum] = /^(dcafk1_([A-Za-z0-9]{1,16})_([\w-]{43}))_([\w-]{6})$/.exec(text);
  if (createHash("sha256").update(body).digest("base64url").slice(0, 6) !== sum) throw new Error("checksum");
  return [kid, Buffer.from(secret, "base64url")];
}
function xaesOpen(key, box, associated) { // https://c2sp.org/XAES-256-GCM
  const aes = (block) => createCipheriv("aes-256-ecb", key, null).setAutoPadding(false).update(block);
  const l = BigInt(`0x${aes(Buffer.alloc(16)).toString("hex")}`);
  const k1 = BigInt.asUintN(128, l << 1n) ^ (l >> 127n ? 0x87n : 0n);
  const block = (counter) => BigInt(`0x000${counter}5800${box.subarray(0, 12).toString("hex")}`) ^ k1;
  const half = (counter) => aes(Buffer.from(block(counter).toString(16).padStart(32, "0"), "hex"));
  const opener = createDecipheriv("aes-256-gcm", Buffer.concat([half(1), half(2)]), box.subarray(12, 24));
  opener.setAAD(associated).setAuthTag(box.subarray(-16));
  return Buffer.concat([opener.update(box.subarray(24, -16)), opener.final()]);
}
function readClaims(bytes) {
  const claims = attempt(() => JSON.parse(utf8(bytes)), "claims");
  // 1.0 is no integer, though JavaScript reads it as one; no claim is a fraction, so none may be spelled as one
  check(!/\d[.eE]/.test(utf8(bytes).replace(/"(?:[^"\\]|\\.)*"/g, '""')), "claims");
  const count = (value) => Number.isSafeInteger(value) && value >= 0;
  const id = (value) => typeof value === "string" && /^[A-Za-z0-9_-]{22}$/.test(value);
  const types = {
    aud: (value) => typeof value === "string", sid: id, seq: count, born: count, iat: count, exp: count,
    sub: id, cid: id, sv: count, ep: count, at: (value) => typeof value === "string" && /^[a-z]{1,16}$/.test(value),
    ix: (value) => Array.isArray(value) && value.every(count),
  };
  check(isObject(claims), "claims");
  check(Object.entries(claims).every(([name, value]) => Object.hasOwn(types, name) && types[name](value)), "claims");
  check(["aud", "sid", "seq", "born", "iat", "exp"].every((name) => Object.hasOwn(claims, name)), "claims");
  return claims;
}
function openToken(token, vector) {
  check(/^[\x00-\x7f]*$/.test(token), "ascii");
  check(token.length <= (vector.max_token_bytes ?? DEFAULT_LIMIT), "length", "session-too-large");
  const suite = token.split(".")[0];
  const parts = Object.hasOwn(SHAPES, suite) ? SHAPES[suite].exec(token) : null;
  check(parts, "shape");
  check(vector.suites.includes(suite), "suite");
  const key = new Map(vector.keys.map(readKey)).get(parts[1]);
  check(key && !(vector.revoked ?? []).includes(parts[1]), "kid");
  const info = (role) => prefixed("dcaf", "1", suite, vector.audience, role);
  const secret = (role) => Buffer.from(hkdfSync("sha256", key, Buffer.alloc(0), info(role), 32));
  if (suite === "dcaf1s") {
    const expected = mac(secret("mac"), token.slice(0, token.lastIndexOf("."))).toString("base64url");
    check(timingSafeEqual(Buffer.from(expected), Buffer.from(parts[4])), "mac"); // both have 43 characters
    check(parts[2].length % 4 !== 1, "claims");
    return [secret, Buffer.from(parts[2], "base64url"), Buffer.from(parts[3], "base64url")];
  }
  const box = Buffer.from(parts[2], "base64url");
  check(box.toString("base64url") === parts[2], "base64");
  const plain = attempt(() => xaesOpen(secret("box"), box, prefixed("dcaf1e", parts[1], vector.audience)), "tag");
  const feed = plain.indexOf(0x0a);
  check(feed >= 0, "claims");
  return [secret, plain.subarray(0, feed), plain.subarray(feed + 1)];
}
function open(vector) {
  let token = vector.token;
  if (vector.envelope !== undefined) {
    const member = JSON.parse(vector.envelope);
    check(isObject(member), "member", "session-malformed");
    check(Object.hasOwn(member, "dcaf"), "plain", "session-unsigned");
    token = member.dcaf?.token;
    check(typeof token === "string", "token", "session-malformed");
  }
  const [secret, bytes, state] = openToken(token, vector);
  const claims = readClaims(bytes);
  const bound = (role, value) =>
    value === null ? undefined : mac(secret("bind"), prefixed(role, value)).subarray(0, 16).toString("base64url");
  const holder = { aud: vector.audience, sub: bound("sub", vector.subject), cid: bound("cid", vector.conversation) };
  for (const name of ["aud", "sub", "cid"]) check(claims[name] === holder[name], name);
  check(claims.iat <= vector.now + SKEW, "iat");
  check(vector.now <= claims.exp + SKEW, "exp", "session-ended");
  check(vector.now <= claims.born + vector.absolute + SKEW, "born", "session-ended");
  check((claims.sv ?? 0) === vector.version, "version", "session-ended");
  const isKept = claims.ep !== undefined || claims.at !== undefined;
  check(vector.store !== null || !isKept, "store", "session-unavailable"); // a service that keeps nothing, last of all
  return { accepted: true, claims: utf8(bytes), state: utf8(state) };
}
function answer(vector) {
  try { return open(vector); } catch (error) {
    if (error instanceof Refused) return { accepted: false, code: error.code, reason: error.reason };
    throw error;
  }
}
export { Refused, isObject, open, openToken, readClaims, utf8 };
if (process.argv[1] === fileURLToPath(import.meta.url))
  for (const vector of JSON.parse(readFileSync(process.argv[2], "utf-8")).vectors)
    console.log(JSON.stringify({ name: vector.name, ...answer(vector) }));

// @ts-check
// What differs between two states, leaf by leaf, so that a change deep inside is seen as well as one at the top.

/** @typedef {{path: string, value: unknown, was: unknown, mark: "new" | "changed" | "removed" | ""}} Row */

/**
 * Every leaf of both states, those of the newer one first.
 * @param {Record<string, any>} before
 * @param {Record<string, any>} after
 * @returns {Row[]}
 */
export function rows(before, after) {
  const old = new Map(leaves(before));
  const kept = Array.from(leaves(after), ([path, value]) => /** @type {Row} */ ({ path, value, was: old.get(path), mark: marked(old, path, value) }));
  const now = new Set(kept.map((row) => row.path));
  const gone = Array.from(old).filter(([path]) => !now.has(path));
  return [...kept, ...gone.map(([path, was]) => ({ path, value: undefined, was, mark: /** @type {const} */ ("removed") }))];
}

/** @param {Map<string, unknown>} old @param {string} path @param {unknown} value */
function marked(old, path, value) {
  if (!old.has(path)) return "new";
  return JSON.stringify(old.get(path)) === JSON.stringify(value) ? "" : "changed";
}

/** @param {unknown} value @param {string} path @returns {Generator<[string, unknown]>} An empty object or array is a leaf. */
function* leaves(value, path = "") {
  const isParent = typeof value === "object" && value !== null && (path === "" || Object.keys(value).length > 0);
  if (!isParent) yield [path, value];
  else for (const [key, item] of Object.entries(value)) yield* leaves(item, joined(path, key, Array.isArray(value)));
}

/** @param {string} path @param {string} key @param {boolean} isIndex A path that no other leaf has, whatever characters are in a key. */
function joined(path, key, isIndex) {
  if (isIndex) return `${path}[${key}]`;
  if (key === "" || /[.[\]"]/.test(key)) return `${path}[${JSON.stringify(key)}]`;
  return path ? `${path}.${key}` : key;
}

// @ts-check
// Where a conversation stands between two loads of the page: in this tab alone, until it is closed.
//
// What a reader gets wrong: an older state is worse than none, for it would offer again what was approved since. Where the newest
// does not fit, nothing is kept.

import { Conversation } from "./conversation.js";

const PLACE = `dcaf ${location.pathname}`;

/** @param {Conversation} talk */
export function keep(talk) {
  try {
    sessionStorage.setItem(PLACE, JSON.stringify(talk));
  } catch {
    forget();
  }
}

/** @param {string} pointer Where a body names its conversation. @returns {Conversation} The one that was kept, or a new one. */
export function restored(pointer) {
  try {
    const found = JSON.parse(sessionStorage.getItem(PLACE) ?? "null");
    if (found?.pointer === pointer) return Conversation.from(found);
  } catch {
    forget();
  }
  return new Conversation(pointer);
}

function forget() {
  try {
    sessionStorage.removeItem(PLACE);
  } catch {} // a browser may allow no storage at all
}

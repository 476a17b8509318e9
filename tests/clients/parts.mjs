// An answer that comes in exactly the given parts, where a real connection would join some of them.

/** Parts in base64; or, as {line, long}, a line with so many bytes of text in it, in parts of 512. */
function bytesOf(parts) {
  if (Array.isArray(parts)) return parts.map((part) => Uint8Array.from(Buffer.from(part, "base64")));
  const bytes = new TextEncoder().encode(parts.line.replace("LONG", "y".repeat(parts.long)));
  return Array.from({ length: Math.ceil(bytes.length / 512) }, (_, at) => bytes.subarray(at * 512, at * 512 + 512));
}

/** What fetch would give. At its end it breaks off, or, with a signal, stays open until that is aborted. */
export function answerOf(parts, { broken = false, status = 200, signal = undefined, onCancel = () => {} } = {}) {
  const left = bytesOf(parts);
  const ended = (controller) => (broken ? controller.error(new TypeError("terminated")) : controller.close());
  return new Response(new ReadableStream({
    start: (controller) => signal?.addEventListener("abort", () => controller.error(signal.reason)),
    pull: (controller) => (left.length ? controller.enqueue(left.shift()) : signal ? undefined : ended(controller)),
    cancel: onCancel,
  }), { status });
}

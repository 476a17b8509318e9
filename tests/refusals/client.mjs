// Posts a body again and again, and prints the status of each answer, or the error: node client.mjs URL BYTES ENCODING TRIES
const [url, bytes, encoding, tries] = process.argv.slice(2);
const body = '{"a":"' + "x".repeat(Number(bytes)) + '"}';
const headers = { "content-type": "application/json", ...(encoding === "gzip" ? { "content-encoding": "gzip" } : {}) };
for (let at = 0; at < Number(tries); at += 1) {
  try {
    const answer = await fetch(url, { method: "POST", body, headers });
    console.log(answer.status, JSON.parse(await answer.text()).code);
  } catch (error) {
    console.log("error", error.cause?.code ?? error.name);
  }
}

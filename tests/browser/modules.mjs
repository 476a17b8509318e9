// Runs the page's modules without a page: a JSON line on the input names a module, a function and its arguments; and where what
// it gives is an attempt to cheat, the outcome that is to be judged.
import { createInterface } from "node:readline";

const folder = process.argv[2];
for await (const line of createInterface({ input: process.stdin })) {
  const { module, name, args, outcome } = JSON.parse(line);
  const found = await import(`${folder}/${module}`);
  try {
    const value = found[name](...args);
    console.log(JSON.stringify({ value: outcome ? value.judge(outcome) : value }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}

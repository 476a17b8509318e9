// Runs the page's modules without a page: a JSON line on the input names a module, a function and its arguments.
import { createInterface } from "node:readline";

const folder = process.argv[2];
for await (const line of createInterface({ input: process.stdin })) {
  const { module, name, args } = JSON.parse(line);
  const found = await import(`${folder}/${module}`);
  console.log(JSON.stringify({ value: found[name](...args) }));
}

// A client in JavaScript as most of them are: what it gets it parses, keeps, and writes again. One JSON text a line.
import { createInterface } from "node:readline";

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(JSON.parse(line)) + "\n");
}

// What the JavaScript here takes from Node.js, for the check of types.
declare const process: { argv: string[]; env: { [name: string]: string | undefined } };

interface ImportMeta {
  readonly filename?: string; // of a module from a file: in a browser there is none
}

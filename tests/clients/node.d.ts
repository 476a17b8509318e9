// What the JavaScript here takes from Node.js, for the check of types.
declare const process: { env: { [name: string]: string | undefined } };

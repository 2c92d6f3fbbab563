// Parses the source that comes on stdin, and runs nothing of it. Where it is no JavaScript and no
// TypeScript either, it prints the number of the line and what is wrong with it.

import { readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { compileFunction } from 'node:vm';

const text = readFileSync(0, 'utf8').replace(/^\uFEFF/, '').replace(/^#!.*/, '');

function parses(parse) {
  try {
    parse();
    return undefined;
  } catch (error) {
    return error;
  }
}

const inCommonJs = () => compileFunction(text, ['exports', 'require', 'module', '__filename', '__dirname']);
const inTypeScript = () => stripTypeScriptTypes(text, { sourceUrl: 'source' });

const error = parses(inCommonJs) && parses(inTypeScript);
// What Node cannot strip is valid all the same; running it says so.
if (error && error.code !== 'ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX') {
  const line = /^source:(\d+)/.exec(error.stack)?.[1] ?? 1;
  console.log(line, error.message.split('\n', 1)[0].replace(/\.$/, ''));
}

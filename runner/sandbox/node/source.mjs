// Source code as people write it, made into what Node runs. Bundlers are lenient where Node is not:
// types are imported without saying so, and ESM is mixed with CommonJS.
// Nothing here reads a file or runs anything.

import { stripTypeScriptTypes } from 'node:module';
import { compileFunction } from 'node:vm';

const CJS_PARAMETERS = ['exports', 'require', 'module', '__filename', '__dirname'];
const ESM_SIGNS = /(?:^|[;}])\s*(?:import|export)\b|\bimport\.meta\b|\bawait\b/m;

/**
 * JavaScript of TypeScript. The types are blanks, so that lines and columns stay; only what is more than
 * types (enums, namespaces, parameter properties) is written anew, with a map to its lines. Throws SyntaxError.
 */
export function withoutTypes(text, url) {
  try {
    return withoutUnusedImports(stripTypeScriptTypes(text));
  } catch (error) {
    if (error.code === 'ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX') return transformed(text, url);
    return stripTypeScriptTypes(text, { sourceUrl: url }); // the same error, but it names the place
  }
}

function transformed(text, url) {
  process.setSourceMapsEnabled(true);
  return stripTypeScriptTypes(text, { mode: 'transform', sourceMap: true, sourceUrl: url });
}

/** 'module' or 'commonjs', by the syntax. */
export function formatOf(text) {
  try {
    compileFunction(text, CJS_PARAMETERS);
    return 'commonjs';
  } catch {
    return ESM_SIGNS.test(text) ? 'module' : 'commonjs';
  }
}

const SPACE = /(?:\s+|\/\/.*|\/\*[^]*?\*\/|(['"])use \w+\1;?|;)+/y;
const IMPORT = /import\s+(?:([\w$]+)\s*,\s*)?\{([^}]*)\}\s*from\s*(?:'[^'\n]*'|"[^"\n]*")/y;
const OTHER_IMPORT = /import\s*(?:[\w$*\s,]+?\s*from\s*)?(?:'[^'\n]*'|"[^"\n]*")(?:\s*with\s*\{[^}]*\})?/y;
const COMMENT_LINES = /^\s*\/\/.*$|^\s*\/\*[^]*?\*\//gm;

/**
 * TypeScript leaves out what a file imports and uses as a type only; stripping types leaves it in.
 * Only the imports that a file begins with are looked at, and a name that stands anywhere stays.
 */
function withoutUnusedImports(text) {
  const edits = [];
  let at = 0;
  const next = (pattern) => {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match) at = pattern.lastIndex;
    return match;
  };
  for (;;) {
    next(SPACE);
    const begin = at;
    const match = next(IMPORT);
    if (match) edits.push({ begin, end: at, match });
    else if (!next(OTHER_IMPORT)) break;
  }
  return edits.length > 0 ? edited(text, edits) : text;
}

function edited(text, imports) {
  const rest = blanked(text, imports).replace(COMMENT_LINES, '');
  const isUsed = (name) => new RegExp(`(?<![\\w$])${name.replaceAll('$', '\\$')}(?![\\w$])`).test(rest);
  const unused = ({ match: [, first, names] }) => {
    const locals = [first, ...names.split(',').map((name) => name.trim().split(/\s+as\s+/).at(-1))];
    const given = locals.filter(Boolean);
    return { all: given.length > 0 && !given.some(isUsed), some: given.filter((name) => !isUsed(name)) };
  };
  let result = text;
  for (const one of imports) {
    const { all, some } = unused(one);
    if (all) result = blanked(result, [one]);
    else for (const name of some) result = withoutName(result, one, name);
  }
  return result;
}

function withoutName(text, { begin, end }, name) {
  const open = text.indexOf('{', begin);
  const statement = text.slice(open, end);
  const one = new RegExp(`(?<=[{,]\\s*)(?:[\\w$]+\\s+as\\s+)?${name.replaceAll('$', '\\$')}\\s*(,|(?=\\}))`);
  const shorter = statement.replace(one, (match) => match.replace(/\S/g, ' '));
  return text.slice(0, open) + shorter + text.slice(end);
}

function blanked(text, spans) {
  let result = text;
  for (const { begin, end } of spans) {
    result = result.slice(0, begin) + result.slice(begin, end).replace(/\S/g, ' ') + result.slice(end);
  }
  return result;
}

/** The name under which a module of mixed syntax exports its CommonJS `module`. */
export const MIXED = '__quarterhour_module';

const ASSIGNS_EXPORTS = /(?<![\w$.])(?:module\.exports|exports\.[\w$]+)\s*=/;

/** ESM with what CommonJS has and it has not: `exports`, `require`, `__dirname`, `__filename`. */
export function withCommonJs(text) {
  const before = [];
  const assigns = ASSIGNS_EXPORTS.test(text) && !declares(text, 'module') && !declares(text, 'exports');
  if (assigns) before.push('const module = { exports: {} }, exports = module.exports;');
  if (lacks(text, 'require')) {
    before.push("import { createRequire as __create } from 'node:module';");
    before.push('const require = __create(import.meta.url);');
  }
  if (lacks(text, '__dirname')) before.push('const __dirname = import.meta.dirname;');
  if (lacks(text, '__filename')) before.push('const __filename = import.meta.filename;');
  const after = assigns ? `\nexport { module as ${MIXED} };\n` : '';
  return before.join(' ') + text + after; // on the first line: the others keep their numbers
}

function lacks(text, name) {
  return new RegExp(`(?<![\\w$.])${name}(?![\\w$])`).test(text) && !declares(text, name);
}

function declares(text, name) {
  return new RegExp(`\\b(?:const|let|var|function|class|import)\\b[^;=\\n]*\\b${name}\\b`).test(text);
}

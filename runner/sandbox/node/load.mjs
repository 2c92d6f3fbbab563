// Loading: the function's file, as the runner has read it, and the files that it imports, as Node
// finds them and, beyond that, as bundlers do. docs/functions.md says what is found where.

import { existsSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { createRequire, registerHooks, stripTypeScriptTypes } from 'node:module';
import { dirname, extname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

import { HandlerNotFound } from './errors.mjs';
import { MIXED, formatOf, withCommonJs, withoutTypes } from './source.mjs';

const BUILT_IN = new Map([
  ['quarterhour', new URL('./builtin/quarterhour.mjs', import.meta.url).href],
  ['@netlify/functions', new URL('./builtin/netlify-functions.mjs', import.meta.url).href],
]);
const NOT_FOUND = new Set(['ERR_MODULE_NOT_FOUND', 'MODULE_NOT_FOUND', 'ERR_UNSUPPORTED_DIR_IMPORT']);
const EXTENSIONS = ['.ts', '.mts', '.cts', '.js', '.mjs', '.cjs', '.json'];
const WRITTEN_IN = { '.js': '.ts', '.mjs': '.mts', '.cjs': '.cts' };
const SUFFIX_FORMATS = { '.mjs': 'module', '.mts': 'module', '.cjs': 'commonjs', '.cts': 'commonjs' };
const TYPESCRIPT = new Set(['.ts', '.mts', '.cts']);
const SOURCES = new Set([...TYPESCRIPT, '.js', '.mjs', '.cjs']);
const FOREIGN = '/node_modules/';
const HERE = new URL('.', import.meta.url).href;

/** Load a function's file: its exports. `source`: what stood in it when the runner read it, a buffer. */
export async function load(path, source) {
  globalThis.Netlify = { env: environment(), context: null };
  const file = existsSync(path) ? realpathSync(path) : path;
  const own = { url: pathToFileURL(file).href, source: source.toString('utf8') };
  const loaded = new Map();
  registerHooks(hooks(own, loaded));
  try {
    const { format } = prepared(own.url, own.source);
    const exported = format === 'commonjs' ? createRequire(own.url)(file) : await import(own.url);
    return exported?.[MIXED]?.exports ?? exported;
  } catch (error) {
    throw error instanceof SyntaxError ? placed(error, loaded) : error;
  }
}

// Netlify's way to the variables, beside `process.env`.
function environment() {
  return {
    get: (name) => process.env[name],
    has: (name) => name in process.env,
    set: (name, value) => void (process.env[name] = value),
    delete: (name) => void delete process.env[name],
    toObject: () => ({ ...process.env }),
  };
}

/** How to call what a module exports: as Netlify has it, `handler` goes before a default export. */
export function handlerOf(exported, path) {
  const module = exported ?? {};
  const classic = module.handler ?? module.default?.handler;
  if (typeof classic === 'function') return { handler: classic, modern: false };
  const modern = module.default?.default ?? module.default;
  if (typeof modern === 'function') return { handler: modern, modern: true };
  const name = path.slice(path.lastIndexOf('/') + 1);
  throw new HandlerNotFound(
    `${name} exports no function: neither \`handler(event, context)\` nor, by default, one of a Request.`,
  );
}

function hooks(own, loaded) {
  return {
    resolve(specifier, context, next) {
      if (specifier === own.url || specifier === fileURLToPath(own.url)) {
        return { url: own.url, shortCircuit: true };
      }
      return withJsonType(resolved(specifier, context, next), context);
    },
    load(url, context, next) {
      if (url === own.url) return note(url, prepared(url, own.source));
      if (!isTheirs(url)) return next(url, context);
      return note(url, prepared(url, readFileSync(fileURLToPath(url), 'utf8')));
    },
  };

  function note(url, result) {
    loaded.set(url, result.source);
    return { ...result, shortCircuit: true };
  }
}

/** Whether it is a file of the functions' authors that may need something done to it. */
function isTheirs(url) {
  if (!url.startsWith('file:') || url.includes(FOREIGN) || url.startsWith(HERE)) return false;
  return SOURCES.has(extname(new URL(url).pathname));
}

function resolved(specifier, context, next) {
  try {
    return next(specifier, context);
  } catch (error) {
    if (!NOT_FOUND.has(error.code)) throw error;
    const url = BUILT_IN.get(specifier) ?? asBundlersFind(specifier, context.parentURL);
    if (!url) throw error;
    return { url, shortCircuit: true };
  }
}

function asBundlersFind(specifier, parentUrl) {
  if (!/^\.{0,2}\//.test(specifier) && specifier !== '.' && specifier !== '..') return undefined;
  if (!parentUrl?.startsWith('file:') || parentUrl.includes(FOREIGN)) return undefined;
  const path = fileURLToPath(new URL(specifier, parentUrl));
  const suffix = extname(path);
  const candidates = [
    ...EXTENSIONS.map((extension) => path + extension),
    ...EXTENSIONS.map((extension) => join(path, `index${extension}`)),
  ];
  if (suffix in WRITTEN_IN) candidates.unshift(path.slice(0, -suffix.length) + WRITTEN_IN[suffix]);
  const found = candidates.find((candidate) => statSync(candidate, { throwIfNoEntry: false })?.isFile());
  return found && pathToFileURL(realpathSync(found)).href;
}

// Bundlers need no `with { type: 'json' }`; Node does, in ESM.
function withJsonType(result, context) {
  if (!result.url.endsWith('.json') || result.importAttributes?.type || context.importAttributes?.type) return result;
  if (![...(context.conditions ?? [])].includes('import')) return result;
  return { ...result, importAttributes: { type: 'json' } };
}

/** The source as Node runs it, and its format. */
function prepared(url, text) {
  const suffix = extname(fileURLToPath(url));
  const plain = text.replace(/^\uFEFF/, '').replace(/^#!.*/, '');
  const code = TYPESCRIPT.has(suffix) ? withoutTypes(plain, url) : plain;
  const format = SUFFIX_FORMATS[suffix] ?? (isModule(fileURLToPath(url)) ? 'module' : formatOf(code));
  return { format, source: format === 'module' ? withCommonJs(code) : code };
}

/** Whether the nearest package.json says so. One that says nothing, or `commonjs`, leaves it to the syntax. */
function isModule(path) {
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    const file = join(folder, 'package.json');
    if (existsSync(file)) return typeIn(file) === 'module';
    if (folder === dirname(folder)) return false;
  }
}

function typeIn(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8')).type;
  } catch {
    return undefined; // npm has more to say about it than we have
  }
}

/** The error with the place where it is, which Node keeps to itself where ESM cannot be parsed. */
function placed(error, loaded) {
  if (!/^SyntaxError/.test(error.stack)) return error;
  for (const [url, source] of loaded) {
    try {
      stripTypeScriptTypes(source, { sourceUrl: url });
    } catch (found) {
      const place = String(found.stack).split('\nSyntaxError', 1)[0];
      error.message += ` (${place.split('\n', 1)[0].replace('file://', '')})`;
      error.stack = `${place}\n${error.stack}`;
      return error;
    }
  }
  return error;
}

// The event: what a classic handler gets to see of its request, in Netlify's shape.
// It never parses a body: text is decoded, everything else is base64.
//
// tests/vectors/events.json has a case for each of its rules, which hold for every runtime.

import { isAscii, isUtf8 } from 'node:buffer';

const TEXT_TYPES = new Set([
  'application/csp-report',
  'application/graphql',
  'application/javascript',
  'application/json',
  'application/x-ndjson',
  'application/x-www-form-urlencoded',
  'application/xml',
]);

// What the web calls windows-1252 by mistake, other languages do not.
const LATIN_1 = new Set(['iso-8859-1', 'iso8859-1', 'iso_8859-1', 'latin1', 'latin-1', 'l1']);
const ASCII = new Set(['ascii', 'us-ascii']);

/**
 * The event of a request. `header`: of an invocation's envelope. `body`: null if the request had
 * none, an empty buffer if it had an empty one.
 */
export function makeEvent(header, body) {
  const { single, lists } = headersOf(header.headers);
  const { path, query } = header;
  const parameters = query ? parametersOf(query) : { single: {}, lists: {} };
  const address = `${header.scheme}://${single.host ?? 'localhost'}${path}`;
  return {
    path,
    httpMethod: header.method,
    queryStringParameters: parameters.single,
    multiValueQueryStringParameters: parameters.lists,
    headers: single,
    multiValueHeaders: lists,
    ...bodyOf(body, single['content-type'] ?? ''),
    rawUrl: query ? `${address}?${query}` : address,
    rawQuery: query,
  };
}

function headersOf(pairs) {
  const lists = {};
  for (const [name, value] of pairs) append(lists, name, value);
  return { single: joined(lists, (name) => (name === 'cookie' ? '; ' : ', ')), lists };
}

function parametersOf(query) {
  const lists = {};
  for (const piece of query.split('&')) {
    if (!piece) continue;
    const at = piece.indexOf('=');
    const name = at < 0 ? piece : piece.slice(0, at);
    append(lists, decoded(name), at < 0 ? '' : decoded(piece.slice(at + 1)));
  }
  return { single: joined(lists, () => ', '), lists };
}

function append(lists, name, value) {
  if (Object.hasOwn(lists, name)) lists[name].push(value);
  else set(lists, name, [value]);
}

function joined(lists, separator) {
  const single = {};
  for (const name of Object.keys(lists)) {
    const values = lists[name];
    set(single, name, values.length === 1 ? values[0] : values.join(separator(name)));
  }
  return single;
}

// A plain object, since handlers call its methods; one assignment on it is none, though.
function set(object, name, value) {
  if (name !== '__proto__') object[name] = value;
  else Object.defineProperty(object, name, { value, writable: true, enumerable: true, configurable: true });
}

function decoded(text) {
  const spaced = text.replaceAll('+', ' ');
  // eslint-disable-next-line no-control-regex
  if (/^[\x00-\x24\x26-\x7f]*$/.test(spaced)) return spaced;
  // Bytes first: a client may have sent UTF-8 without encoding it. An invalid %zz stays as it is.
  const bytes = spaced.replace(/%([0-9a-f]{2})/gi, (_, digits) => String.fromCharCode(parseInt(digits, 16)));
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

function bodyOf(body, contentType) {
  if (body === null) return { body: null, isBase64Encoded: false };
  const charset = charsetOf(contentType);
  const text = body.length === 0 ? '' : charset === null ? null : textOf(body, charset);
  return typeof text === 'string'
    ? { body: text, isBase64Encoded: false }
    : { body: body.toString('base64'), isBase64Encoded: true };
}

/** The body as text, null if it is not what it says: nothing is lost in base64. */
function textOf(body, charset) {
  if (charset === 'utf-8' || charset === 'utf8') return isUtf8(body) ? body.toString('utf8') : null;
  if (LATIN_1.has(charset)) return body.toString('latin1');
  if (ASCII.has(charset)) return isAscii(body) ? body.toString('latin1') : null;
  try {
    return new TextDecoder(charset, { fatal: true, ignoreBOM: true }).decode(body);
  } catch {
    return null;
  }
}

/** The encoding of a text's body, null if the content is no text. */
function charsetOf(contentType) {
  const [first, ...parameters] = contentType.split(';');
  const type = first.trim().toLowerCase();
  const isText =
    TEXT_TYPES.has(type) || type.startsWith('text/') || type.endsWith('+json') || type.endsWith('+xml');
  if (!isText) return null;
  for (const parameter of parameters) {
    const [name, ...rest] = parameter.split('=');
    if (name.trim().toLowerCase() === 'charset') return rest.join('=').trim().replace(/^"+|"+$/g, '').toLowerCase();
  }
  return 'utf-8';
}

// Results: what a handler returned, as frames. It judges nothing: statuses and headers are sent as they are.

import { InvalidResult, ResponseTooLarge } from './errors.mjs';

const VALUE_BYTES_MAX = 65536;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
// JSON writes half a character as an escape, and nothing else of that kind.
const HALF_A_CHARACTER = /(?<!\\)(?:\\\\)*\\ud[89a-f]/;
const EMPTY = Buffer.alloc(0);

/** What a classic handler returned to somebody who waits: `{header, body}`, or `{header, stream}`. */
export function responseFrame(result, bodyBytesMax) {
  if (!isObject(result)) return { header: { kind: 'returned', shape: shapeOf(result) }, body: EMPTY };
  const start = {
    statusCode: result.statusCode,
    headers: plainHeaders(result.headers),
    multiValueHeaders: result.multiValueHeaders,
  };
  if (isStream(result.body)) return { header: { kind: 'streaming', ...start }, stream: result.body };
  const [kind, body] = bodyOf(result);
  if (body.length > bodyBytesMax) throw tooLarge(body.length, bodyBytesMax);
  return { header: { kind: 'returned', shape: 'object', ...start, body: kind }, body };
}

/** What a handler returned to nobody: the value as JSON, and the status that it may claim. */
export function valueFrame(result) {
  if (result === undefined || result === null) return { header: { kind: 'returned', shape: 'nothing' }, body: EMPTY };
  let text;
  try {
    text = JSON.stringify(result);
  } catch (error) {
    throw new InvalidResult(`What the handler returned is not JSON: ${error.message.split('\n', 1)[0]}.`);
  }
  if (text === undefined) throw new InvalidResult(`What the handler returned is not JSON: it is a ${typeof result}.`);
  if (text.includes('\\ud') && HALF_A_CHARACTER.test(text)) {
    throw new InvalidResult('What the handler returned is not JSON: it has half a character in it.');
  }
  const header = { kind: 'returned', shape: 'other' };
  if (isObject(result) && 'statusCode' in result) {
    Object.assign(header, { shape: 'object', statusCode: result.statusCode });
  }
  return { header, body: Buffer.from(text).subarray(0, VALUE_BYTES_MAX) };
}

/** Whether a body comes bit by bit: a stream of the web or of Node. */
export function isStream(body) {
  return isObject(body) && (typeof body.getReader === 'function' || typeof body[Symbol.asyncIterator] === 'function');
}

/** The error of a body of so many bytes. */
export function tooLarge(size, bodyBytesMax) {
  return new ResponseTooLarge(`The response's body has ${size} bytes; ${bodyBytesMax} are allowed.`);
}

function isObject(value) {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

function shapeOf(result) {
  return result === undefined || result === null ? 'nothing' : 'other';
}

// `Headers` and `Map` have nothing in them for JSON.
function plainHeaders(headers) {
  return typeof headers?.entries === 'function' ? Object.fromEntries(headers.entries()) : headers;
}

function bodyOf({ body, isBase64Encoded }) {
  if (body === undefined || body === null || body === '') return ['none', EMPTY];
  if (typeof body !== 'string') return ['invalid', EMPTY];
  if (!isBase64Encoded && !body.isWellFormed()) {
    throw new InvalidResult('The body that the handler returned is no text: it has half a character in it.');
  }
  if (!isBase64Encoded) return ['text', Buffer.from(body)];
  return BASE64.test(body) ? ['base64', Buffer.from(body, 'base64')] : ['invalid', EMPTY];
}

// Modern handlers: `(Request, Context) => Response`, with the names that Netlify gave them.

import { remainingMs } from './context.mjs';
import { bytesOf } from './streaming.mjs';

const VALUE_CHARACTERS_MAX = 65536;
// A Request refuses these, though they are methods like others to whoever serves them.
const REFUSED_METHODS = new Set(['CONNECT', 'TRACE', 'TRACK']);
const TURNS_MAX = 100; // of the queue of promises, which is far cheaper to wait for than the event loop
const EMPTY = Buffer.alloc(0);

/** The request, with its real address, and its body unless the method has none. */
export function makeRequest(header, body) {
  const headers = new Headers();
  for (const [name, value] of header.headers) headers.append(name, value);
  const { method } = header;
  const refused = REFUSED_METHODS.has(method.toUpperCase());
  const request = new Request(addressOf(header, headers.get('host')), {
    method: refused ? 'POST' : method,
    headers,
    body: method === 'GET' || method === 'HEAD' || !body?.length ? undefined : body,
  });
  if (refused) Object.defineProperty(request, 'method', { value: method });
  return request;
}

function addressOf({ scheme, path, query }, host) {
  const rest = query ? `${path}?${query}` : path;
  const address = `${scheme}://${host || 'localhost'}${rest}`;
  return URL.canParse(address) ? address : `${scheme}://localhost${rest}`;
}

/** The context. What it is told to wait for is put into `promises`. */
export function makeContext(header, request, limitAt, promises) {
  const cookies = new Cookies(request.headers.get('cookie') ?? '');
  const url = new URL(request.url);
  return {
    account: { id: '' },
    cookies,
    deploy: { context: 'production', id: '0', published: true },
    geo: {},
    ip: header.client,
    json: (value, options) => Response.json(value, options),
    log: (...values) => console.log(...values),
    next: async () => undefined,
    params: header.params ?? {},
    requestId: header.id,
    rewrite: (to) => fetch(new URL(to, url)),
    server: { region: '' },
    site: { id: '', name: '', url: url.origin },
    url,
    waitUntil: (promise) => void promises.push(Promise.resolve(promise).catch((error) => console.error(error))),
    attempt: header.attempt,
    errors: header.errors,
    getRemainingTimeInMillis: () => remainingMs(limitAt),
  };
}

class Cookies {
  #received = new Map();
  #changes = [];

  constructor(text) {
    for (const piece of text.split(';')) {
      const [name, ...value] = piece.split('=');
      if (name.trim() && !this.#received.has(name.trim())) this.#received.set(name.trim(), decoded(value.join('=').trim()));
    }
  }

  get(name) {
    return this.#received.get(name);
  }

  /** `set(name, value)`, or `set({name, value, path, maxAge, ...})`. */
  set(nameOrCookie, value) {
    this.#changes.push(cookieText(typeof nameOrCookie === 'object' ? nameOrCookie : { name: nameOrCookie, value }));
  }

  /** `delete(name)`, or `delete({name, domain, path})`. */
  delete(nameOrCookie) {
    const cookie = typeof nameOrCookie === 'object' ? nameOrCookie : { name: nameOrCookie };
    this.#changes.push(cookieText({ ...cookie, value: '', expires: new Date(0) }));
  }

  /** The values of `set-cookie` to add. Not the handler's affair, and so no method. */
  static changes(cookies) {
    return cookies.#changes;
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function cookieText({ name, value, domain, path, expires, maxAge, httpOnly, secure, sameSite, partitioned }) {
  const parts = [`${name}=${encodeURIComponent(value ?? '')}`];
  if (maxAge !== undefined) parts.push(`Max-Age=${maxAge}`);
  if (domain) parts.push(`Domain=${domain}`);
  if (path) parts.push(`Path=${path}`);
  if (expires !== undefined) parts.push(`Expires=${new Date(expires).toUTCString()}`);
  if (httpOnly) parts.push('HttpOnly');
  if (secure) parts.push('Secure');
  if (sameSite) parts.push(`SameSite=${sameSite}`);
  if (partitioned) parts.push('Partitioned');
  return parts.join('; ');
}

/** Whether it is a Response, of whichever library. */
export function isResponse(result) {
  return Object.prototype.toString.call(result) === '[object Response]';
}

/**
 * The frame of what a modern handler returned: `{header, body}`, or `{header, stream}`.
 *
 * A body that is there at once, and no larger than a response may be, is sent as one.
 */
export async function modernFrame(result, cookies, bodyBytesMax) {
  if (result === undefined) return noContent(cookies);
  if (!isResponse(result)) return { header: { kind: 'returned', shape: result === null ? 'nothing' : 'other' }, body: EMPTY };
  const start = { statusCode: result.status, ...headersOf(result, cookies) };
  if (!result.body) return { header: { kind: 'returned', shape: 'object', ...start, body: 'none' }, body: EMPTY };
  const { bytes, rest } = await atOnce(result.body, bodyBytesMax);
  if (rest) return { header: { kind: 'streaming', ...start }, stream: rest };
  return { header: { kind: 'returned', shape: 'object', ...start, body: 'text' }, body: bytes };
}

function noContent(cookies) {
  const header = { kind: 'returned', shape: 'object', statusCode: 204, body: 'none' };
  return { header: { ...header, ...headersOf({ headers: new Headers() }, cookies) }, body: EMPTY };
}

function headersOf(response, cookies) {
  const headers = {};
  for (const [name, value] of response.headers) if (name !== 'set-cookie') headers[name] = value;
  // What was fetched has been decoded on the way.
  if (response.url) delete headers['content-encoding'];
  const set = [...response.headers.getSetCookie(), ...Cookies.changes(cookies)];
  return { headers, multiValueHeaders: set.length > 0 ? { 'set-cookie': set } : undefined };
}

async function atOnce(body, bytesMax) {
  const reader = body.getReader();
  const parts = [];
  let size = 0;
  while (size <= bytesMax) {
    const read = reader.read();
    const chunk = await soon(read);
    if (!chunk) return { rest: following(parts, read, reader) };
    if (chunk.done) return { bytes: parts.length === 1 ? parts[0] : Buffer.concat(parts, size) };
    const bytes = bytesOf(chunk.value);
    parts.push(bytes);
    size += bytes.length;
  }
  return { rest: following(parts, reader.read(), reader) };
}

/** What a promise comes to if nothing has to happen first but other promises; undefined if it takes longer. */
async function soon(promise) {
  let found;
  promise.then((value) => (found = { value }), (error) => (found = { error }));
  for (let turn = 0; turn < TURNS_MAX && !found; turn += 1) await undefined;
  if (found?.error !== undefined) throw found.error;
  return found?.value;
}

/** The parts that have come, and then what is read; whoever stops early cancels the rest. */
async function* following(parts, first, reader) {
  try {
    yield* parts;
    for (let chunk = await first; !chunk.done; chunk = await reader.read()) yield chunk.value;
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** A Response as the value that nobody waits for: its status, and how its body begins. */
export async function responseValue(response) {
  const text = response.body ? (await response.text()).slice(0, VALUE_CHARACTERS_MAX) : '';
  return { statusCode: response.status, body: text };
}

// Errors: those that the worker has for authors, and how any error is told to the runner.

const MESSAGE_CHARACTERS_MAX = 8192;
const TRACE_LINES_MAX = 50;
const TRACE_LINE_CHARACTERS_MAX = 1024;
const CAUSES_MAX = 5;

const HERE = new URL('.', import.meta.url).href;
const INTERNAL = /^\s+at .*\(?node:internal\//;

/** The module has neither a `handler` nor a default export that can be called. */
export class HandlerNotFound extends Error {}

/** The body of the response is larger than the operator allows. */
export class ResponseTooLarge extends Error {}

/** What the handler returned cannot be sent or kept. */
export class InvalidResult extends Error {}

/** The header of the frame of whatever was thrown. */
export function raisedHeader(thrown, { retire = false } = {}) {
  const type = typeOf(thrown);
  const outOfMemory = type === 'RangeError' && messageOf(thrown) === 'Array buffer allocation failed';
  const retryAfterS = type === 'RetryAfter' && Number.isFinite(thrown.delayS) ? thrown.delayS : null;
  return {
    kind: 'raised',
    error: { type, message: messageOf(thrown).slice(0, MESSAGE_CHARACTERS_MAX), trace: traceOf(thrown) },
    // The work was done and would be done again; DoNotRetry says so itself.
    retry: type !== 'DoNotRetry' && type !== 'InvalidResult',
    retry_after_s: retryAfterS,
    out_of_memory: outOfMemory,
    retire: retire || outOfMemory,
  };
}

// Anything can be thrown, and an error's own properties are user code: nothing of it may throw here.
function shown(read, otherwise) {
  try {
    return String(read()).toWellFormed();
  } catch {
    return otherwise;
  }
}

function isError(thrown) {
  return thrown !== null && typeof thrown === 'object' && 'message' in thrown;
}

function typeOf(thrown) {
  if (thrown === null || typeof thrown !== 'object') return thrown === null ? 'null' : typeof thrown;
  const name = shown(() => thrown.name ?? '', '');
  if (name && name !== 'Error') return name;
  return shown(() => thrown.constructor.name, '') || name || 'Error';
}

function messageOf(thrown) {
  if (isError(thrown)) return shown(() => thrown.message, '(its message cannot be shown)');
  if (thrown !== null && typeof thrown === 'object') {
    return shown(() => JSON.stringify(thrown), '(it cannot be shown)');
  }
  return shown(() => thrown, '(it cannot be shown)');
}

/** The stack without the worker's own frames, and those of its causes. */
function traceOf(thrown) {
  const lines = [];
  for (let error = thrown, depth = 0; isError(error) && depth < CAUSES_MAX; depth += 1) {
    const stack = own(shown(() => error.stack ?? '', '').split('\n'));
    if (depth > 0 && stack.length > 0) stack[0] = `Caused by: ${stack[0]}`;
    lines.push(...stack);
    try {
      error = error.cause;
    } catch {
      break;
    }
  }
  return lines.slice(0, TRACE_LINES_MAX).map((line) => line.slice(0, TRACE_LINE_CHARACTERS_MAX));
}

function own(lines) {
  const ours = lines.findIndex((line) => /^\s+at /.test(line) && line.includes(HERE));
  return lines.slice(0, ours < 0 ? undefined : ours).filter((line) => line.trim() && !INTERNAL.test(line));
}

// Streamed bodies: what comes bit by bit goes to the runner bit by bit, no faster than it takes it.

const CHUNK_BYTES_MAX = 65536;

/** Send `header` and then the chunks of `body`. `isOver()`: whether the attempt has failed meanwhile. */
export async function sendStream(channel, header, body, isOver) {
  await channel.write(header, Buffer.alloc(0));
  for await (const chunk of body) {
    if (isOver()) return;
    await sendChunk(channel, bytesOf(chunk), isOver);
  }
}

async function sendChunk(channel, bytes, isOver) {
  for (let at = 0; at < bytes.length && !isOver(); at += CHUNK_BYTES_MAX) {
    await channel.write({ kind: 'chunk' }, bytes.subarray(at, at + CHUNK_BYTES_MAX));
  }
}

/** A chunk as bytes: streams of the web have arrays of them, those of Node text as well. */
export function bytesOf(chunk) {
  if (typeof chunk === 'string') return Buffer.from(chunk);
  if (ArrayBuffer.isView(chunk)) return Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  if (chunk instanceof ArrayBuffer) return Buffer.from(chunk);
  throw new TypeError(`The body's stream gave a chunk that is neither bytes nor text, but ${describe(chunk)}.`);
}

function describe(chunk) {
  return chunk === null ? 'null' : `of the type ${typeof chunk}`;
}

import { Readable } from 'node:stream';
import { stream } from '@netlify/functions';

interface Event { queryStringParameters: Record<string, string> }

function* pieces(left: number): Generator<Buffer> {
  for (; left > 0; left -= 65536) yield Buffer.alloc(Math.min(left, 65536));
}

export const handler = stream(async ({ queryStringParameters: asked }: Event) => ({
  statusCode: 200,
  body: asked.bytes ? 'x'.repeat(Number(asked.bytes)) : Readable.from(pieces(Number(asked.streamed))),
}));

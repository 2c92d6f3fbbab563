import { PNG } from 'pngjs';
import { Config, Context } from '@netlify/functions';

import { scale } from './lib/scale';

const WIDTHS = { small: 40, medium: 160 } as const;

// A picture of ours, in one of the sizes above: /thumbnails/small/cover.png
export default async (_request: Request, context: Context) => {
  const { size, name } = context.params as { size: keyof typeof WIDTHS; name: string };
  const found = await fetch(`${process.env.API_URL}/pictures/${name}`);
  if (found.status === 404) return new Response(`There is no picture ${name}.`, { status: 404 });

  const picture = PNG.sync.read(Buffer.from(await found.arrayBuffer()));
  const thumbnail = PNG.sync.write(scale(picture, WIDTHS[size]) as PNG);
  return new Response(thumbnail, {
    headers: {
      'content-type': 'image/png',
      'cache-control': 'public, max-age=31536000, immutable',
      etag: found.headers.get('etag')!,
    },
  });
};

export const config: Config = {
  path: '/thumbnails/:size(small|medium)/:name',
  method: ['GET', 'HEAD'],
};

/*
Short links: /go/NAME leads to a long address, /go says which ones there are.

curl -i localhost:8888/go/netlify
curl localhost:8888/go

The links are in .quarterhour/links.json (LINKS: another file), as {"name": "https://example.org/"}; a
change is there with the next request. Without that file there are a few to try.
*/

import { readFile } from 'node:fs/promises';

import type { Config, Context } from '@netlify/functions';

type Links = Record<string, string>;

const SAMPLES: Links = {
  netlify: 'https://docs.netlify.com/functions/overview/',
  node: 'https://nodejs.org/api/',
  python: 'https://docs.python.org/3/',
};

export default async (request: Request, context: Context): Promise<Response> => {
  const links = await readLinks();
  const name = context.params.slug;
  if (name === undefined) return Response.json(links);

  // What comes out of the path is as it was sent: /go/caf%C3%A9 is the link "café".
  const target = links[decoded(name)];
  if (target === undefined) {
    return Response.json({ error: `There is no link ${name}.`, links: Object.keys(links) }, { status: 404 });
  }
  const url = new URL(target);
  for (const [key, value] of new URL(request.url).searchParams) url.searchParams.append(key, value);
  console.log(`${name} -> ${url}`);
  // 302, and not to be remembered: the link may lead elsewhere tomorrow.
  return new Response(null, { status: 302, headers: { location: url.href, 'cache-control': 'no-store' } });
};

/** The links that lead somewhere: a bad line in the file must not take the good ones down. */
async function readLinks(): Promise<Links> {
  const path = process.env.LINKS || '.quarterhour/links.json';
  let given: unknown;
  try {
    given = JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') given = SAMPLES;
    else throw new Error(`${path} cannot be read: ${(error as Error).message}`, { cause: error });
  }
  const entries = Object.entries(given ?? {}).filter(([name, target]) => {
    const isGood = typeof target === 'string' && /^https?:\/\//.test(target) && URL.canParse(target);
    if (!isGood) console.warn(`${path}: ${name} is no address such as "https://example.org/"`);
    return isGood;
  });
  return Object.assign(Object.create(null), Object.fromEntries(entries)); // without what every object has
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const config: Config = {
  path: ['/go', '/go/:slug'],
  method: ['GET', 'HEAD'],
};

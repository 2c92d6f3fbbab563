import { createHash } from 'node:crypto';

import type { Handler, HandlerEvent } from '@netlify/functions';

const Status = { Ok: 200, NotModified: 304 } as const;

type Post = { slug: string; title: string; date: string; summary: string };

const escaped = (text: string): string =>
  text.replace(/[<>&"']/g, (character) => `&#${character.charCodeAt(0)};`);

const handler: Handler = async (event: HandlerEvent) => {
  const response = await fetch(`${process.env.API_URL}/posts.json`);
  const posts = (await response.json()) as Post[];
  const feed = rss(posts, new URL(event.rawUrl).origin);

  const etag = `"${createHash('sha256').update(feed).digest('hex').slice(0, 16)}"`;
  const headers = { etag, 'cache-control': 'max-age=600' };
  if (event.headers['if-none-match'] === etag) return { statusCode: Status.NotModified, headers };
  return {
    statusCode: Status.Ok,
    headers: { ...headers, 'content-type': 'application/rss+xml; charset=utf-8' },
    body: feed,
  };
};

function rss(posts: Post[], site: string): string {
  const items = posts.map(
    ({ slug, title, date, summary }) => `
    <item>
      <title>${escaped(title)}</title>
      <link>${site}/${slug}/</link>
      <guid isPermaLink="true">${site}/${slug}/</guid>
      <pubDate>${new Date(date).toUTCString()}</pubDate>
      <description>${escaped(summary)}</description>
    </item>`,
  );
  return `<?xml version="1.0" encoding="utf-8"?>
<rss version="2.0">
  <channel>
    <title>The Corner Bookshop</title>
    <link>${site}/</link>
    <description>What is new on our shelves</description>${items.join('')}
  </channel>
</rss>
`;
}

export { handler };

const escaped = (text) => text.replace(/[<>&"']/g, (character) => `&#${character.charCodeAt(0)};`);

// The feed comes as the posts do: a reader has its beginning before the last one is made.
export default async function handler(request) {
  const { origin } = new URL(request.url);
  const response = await fetch(new URL('/posts.json', process.env.API_URL));
  const posts = await response.json();
  const body = ReadableStream.from(rss(posts, origin)).pipeThrough(new TextEncoderStream());
  return new Response(body, {
    headers: {
      'Content-Type': 'application/rss+xml; charset=utf-8',
      'Last-Modified': new Date(Math.max(...posts.map(({ date }) => new Date(date)))).toUTCString(),
    },
  });
}

async function* rss(posts, site) {
  yield `<?xml version="1.0" encoding="utf-8"?>\n<rss version="2.0"><channel><title>The Corner Bookshop</title>`;
  yield `<link>${site}/</link><description>What is new on our shelves</description>`;
  for (const { slug, title, date, summary } of posts) {
    yield `<item><title>${escaped(title)}</title><link>${site}/${slug}/</link>
      <guid isPermaLink="true">${site}/${slug}/</guid><pubDate>${new Date(date).toUTCString()}</pubDate>
      <description>${escaped(summary)}</description></item>`;
  }
  yield '</channel></rss>';
}

export const config = { path: ['/feed.xml', '/rss'] };

// What is about the connection, or about how the body was packed, which fetch has undone.
const OWN = ['connection', 'content-encoding', 'content-length', 'host', 'keep-alive', 'transfer-encoding'];

export default async (request, context) => {
  const { pathname, search } = new URL(request.url);
  const url = new URL(pathname.replace(/^\/api\/shop/, '') + search, Netlify.env.get('API_URL'));
  const headers = new Headers(request.headers);
  OWN.forEach((name) => headers.delete(name));
  headers.set('authorization', `Bearer ${Netlify.env.get('API_KEY')}`);
  headers.set('x-forwarded-for', context.ip);

  const response = await fetch(url, {
    method: request.method,
    headers,
    body: request.body,
    duplex: 'half',
    redirect: 'manual',
    signal: AbortSignal.timeout(20_000),
  });
  const answer = new Response(response.body, response);
  OWN.forEach((name) => answer.headers.delete(name));
  return answer;
};

export const config = { path: '/api/shop/*' };

const ways = {
  request: async (request) => Response.json({
    method: request.method,
    url: request.url,
    headers: [...request.headers],
    text: await request.text(),
  }),
  response: () => new Response('short ö', {
    status: 418,
    headers: [['x-one', '1'], ['set-cookie', 'a=1'], ['set-cookie', 'b=2']],
  }),
  bytes: () => new Response(new Uint8Array([0, 255])),
  empty: () => new Response(null, { status: 204 }),
  fails: () => { throw new TypeError('modern'); },
  nothing: () => undefined,
  none: () => null,
  begins: () => ({ statusCode: 200 }),
  text: () => 'text',
  number: () => 200,
};

export default async (request) => ways[new URL(request.url).pathname.split('/').at(-1)](request);

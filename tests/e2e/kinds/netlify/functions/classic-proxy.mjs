import { stream } from '@netlify/functions';

const PREFIX = '/.netlify/functions/classic-proxy';
// What is about the connection, or about how the body was packed, which fetch has undone.
const OWN = ['connection', 'content-encoding', 'content-length', 'host', 'keep-alive', 'transfer-encoding'];

export const handler = stream(async (event) => {
  const { httpMethod, headers, body, isBase64Encoded, path, rawQuery } = event;
  const url = `${process.env.API_URL}${path.slice(PREFIX.length)}${rawQuery && `?${rawQuery}`}`;
  const response = await fetch(url, {
    method: httpMethod,
    headers: { ...without(headers), authorization: `Bearer ${process.env.API_KEY}` },
    body: body ? Buffer.from(body, isBase64Encoded ? 'base64' : 'utf8') : undefined,
    redirect: 'manual',
  });
  return {
    statusCode: response.status,
    headers: without(Object.fromEntries(response.headers)),
    multiValueHeaders: { 'set-cookie': response.headers.getSetCookie() },
    body: response.body ?? '',
  };
});

function without(headers) {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !OWN.includes(name)));
}

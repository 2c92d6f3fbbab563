/*
NAME: whoever calls it waits for its answer, for up to a minute.

curl 'localhost:8888/.netlify/functions/NAME?name=Ada'
curl -d '{"name": "Ada"}' -H content-type:application/json localhost:8888/.netlify/functions/NAME

Types are for your editor, which finds these with `npm install --save-dev @netlify/functions`; here they are
taken out and never checked.
*/

import type { Context } from '@netlify/functions';

// What is up here runs once in each worker, which then serves one call after the other: the place for
// what is costly, such as a client of a database.

// A Request and a Response as in every browser. The context knows more: requestId, params, cookies, ip, ...
export default async function (request: Request, context: Context): Promise<Response> {
  const name = new URL(request.url).searchParams.get('name') || (await nameIn(request)) || 'world';

  // What it prints goes to the log. The id is the caller's too, in the header x-nf-request-id.
  console.log(`greeting ${name}, invocation ${context.requestId}`);

  // An error would be a 500.
  return Response.json({ message: `Hello, ${name}!` });
}

async function nameIn(request: Request): Promise<string | undefined> {
  try {
    return (await request.json()).name;
  } catch {
    return undefined; // no body, no JSON, no name
  }
}

/*
NAME: answered at once with 202, it runs in the background, for up to a quarter of an hour.

curl -i -d '{"items": ["one", "two"]}' -H content-type:application/json \
     localhost:8888/.netlify/functions/NAME

The name ends in -background, and that makes it a background function. The 202 says that the work is
safely on disk; its header Location is where to see what becomes of it (with localhost:8888 in front, open
it in a browser).
*/

import { setTimeout } from 'node:timers/promises';

import { DoNotRetry, RetryAfter } from 'quarterhour'; // there without being installed

// All of it may be left out. It is read without running this file, so write plain values.
export const config = {
  timeout: 300, // seconds for one attempt; without it 900
  retries: 2, // more attempts after one that failed
  retryDelay: [60, 120], // seconds before the first of them and before the second
};

export default async function (request, context) {
  const items = await itemsIn(request);

  // A machine can die at any moment, and then all of this runs once more. So do things in a way that
  // does no harm twice: the id is the same in every attempt, and context.attempt counts them from 1.
  console.log(`attempt ${context.attempt} of invocation ${context.requestId}`); // goes to its log

  const done = [];
  for (const item of items) done.push(await workOn(item));

  // What is returned, any JSON value, is kept as the invocation's result.
  return { done };
}

async function itemsIn(request) {
  const text = await request.text();
  try {
    const { items = ['a', 'sample'] } = JSON.parse(text || '{}');
    if (Array.isArray(items)) return items;
  } catch {
    // It is said below.
  }
  // It would be as wrong the next time: it is set aside at once, as a dead letter with this message.
  throw new DoNotRetry('The body must be JSON such as {"items": ["one", "two"]}.');
}

/** Your work goes here. */
async function workOn(item) {
  try {
    await setTimeout(100);
  } catch (error) {
    // This is one attempt that has failed, and you say when the next one makes sense: in 30 seconds.
    // Any other error is tried again after "retryDelay".
    throw new RetryAfter(30, `the other side is away: ${error.message}`, { cause: error });
  }
  return `${item}, done`;
}

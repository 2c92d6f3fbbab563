// The context of a classic handler: what it may ask about its invocation. It never stops anything:
// the guard keeps the limit, the context only tells how far away it is.

import { BEHIND_S, bootS } from './clock.mjs';

/** One for each attempt. `answer(error, result)` is what `done`, `fail` and `succeed` of old code come to. */
export class Context {
  #limitAt;
  #answer;

  constructor({ header, memoryMib, limitAt, answer }) {
    this.#limitAt = limitAt;
    this.#answer = answer;
    this.callbackWaitsForEmptyEventLoop = true;
    this.functionName = header.function;
    this.functionVersion = '$LATEST';
    // A name with the parts of an Amazon Resource Name, for code that takes the last of them.
    this.invokedFunctionArn = `arn:quarterhour:lambda:local:000000000000:function:${header.function}`;
    this.memoryLimitInMB = String(memoryMib); // text, as in Lambda
    this.awsRequestId = header.id;
    this.logGroupName = `/quarterhour/${header.function}`;
    this.logStreamName = header.id;
    this.identity = undefined;
    this.clientContext = {}; // not undefined: Netlify's handlers look for `user` and `identity` in it
    this.attempt = header.attempt;
    this.errors = header.errors;
    this.params = header.params ?? {};
    // Handlers take them off the context, so they are bound to it.
    this.getRemainingTimeInMillis = () => remainingMs(this.#limitAt);
    this.done = (error, result) => this.#answer(error, result);
    this.fail = (error) => this.#answer(error ?? new Error('The handler called context.fail().'));
    this.succeed = (result) => this.#answer(null, result);
  }
}

/** Milliseconds until that moment of the boot clock, 0 when it has come; never more than there are. */
export function remainingMs(limitAt) {
  return Math.max(0, Math.floor((limitAt - bootS() - BEHIND_S) * 1000));
}

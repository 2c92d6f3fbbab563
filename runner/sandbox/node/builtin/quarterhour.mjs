// The authors' API: what a function may throw to say how its failure is to be handled.
// `import { DoNotRetry, RetryAfter } from 'quarterhour'` finds it without anything being installed.

/** Thrown by a background function that knows that trying again is useless: it fails for good. */
export class DoNotRetry extends Error {
  constructor(message, options) {
    super(message, options);
    this.name = 'DoNotRetry';
  }
}

/**
 * Thrown by a background function that knows when trying again makes sense.
 *
 * `delayS` (seconds, 0 or more) replaces the delay of the function's retry policy for this one retry;
 * the number of retries stays what the policy says.
 */
export class RetryAfter extends Error {
  constructor(delayS, message, options) {
    if (typeof delayS !== 'number' || !(delayS >= 0) || delayS === Infinity) {
      throw new RangeError(`RetryAfter needs a delay of 0 or more seconds, not ${String(delayS)}.`);
    }
    super(message || `retry after ${delayS} s`, options);
    this.name = 'RetryAfter';
    this.delayS = delayS;
  }
}

// One attempt: from the frame that starts it to the last one that answers it.

import { Context } from './context.mjs';
import { raisedHeader } from './errors.mjs';
import { handlerOf, load } from './load.mjs';
import { makeEvent } from './event.mjs';
import { responseFrame, valueFrame } from './result.mjs';

const EMPTY = Buffer.alloc(0);

let loading; // the exports of the function's module, a promise: it is loaded once
let modern; // the module of modern handlers, whose classes take a while to load

/** One for each attempt. `fail` and `starve` tell it what happens outside the handler. */
export class Attempt {
  constructor({ channel, served, limitAt, header, body }) {
    Object.assign(this, { channel, served, limitAt, header, body });
    this.over = false;
    this.retire = false;
    this.promises = []; // what a modern handler has said is to be waited for
    this.end = Promise.withResolvers();
  }

  /** Run the handler once: the last frame, `{header, body}`. Whatever it throws becomes one. */
  async run() {
    // The handler decides what it waits for; where there is nothing left, the channel must not hide it.
    this.channel.hold(false);
    this.work().then(this.end.resolve, this.end.reject);
    try {
      return await this.end.promise;
    } catch (error) {
      return { header: raisedHeader(error, { retire: this.retire }), body: EMPTY };
    } finally {
      this.over = true;
      this.channel.hold(true);
    }
  }

  /** An error that nothing awaited. */
  fail(error) {
    this.retire = true;
    this.end.reject(error);
  }

  /** Nothing is left that could go on. */
  starve() {
    if (this.answer) this.answer.resolve(undefined);
    else this.fail(new Error('The handler waits for something, but nothing is left that could bring it about.'));
  }

  async work() {
    const { handler, modern: isModern } = await this.loaded();
    const frame = isModern ? await this.runModern(handler) : await this.runClassic(handler);
    if (frame.stream) await this.send(frame);
    if (this.promises.length > 0) await this.settled();
    return frame.stream ? { header: { kind: 'returned', shape: 'streamed' }, body: EMPTY } : frame;
  }

  async loaded() {
    loading ??= load(this.served.path, this.served.source);
    try {
      return handlerOf(await loading, this.served.path);
    } catch (error) {
      this.retire = true; // what has failed to load is no base for anything
      throw error;
    }
  }

  async runClassic(handler) {
    const event = makeEvent(this.header, this.body);
    const result = await this.call(handler, event);
    if (this.header.mode !== 'synchronous') return valueFrame(result);
    return responseFrame(result, this.served.response_bytes_max);
  }

  /** Call a classic handler, which returns, promises or calls back. */
  call(handler, event) {
    const answer = Promise.withResolvers();
    const callback = (error, result) => {
      if (error === undefined || error === null) answer.resolve(result);
      else answer.reject(error);
    };
    const context = new Context({
      header: this.header,
      memoryMib: this.served.memory_mib,
      limitAt: this.limitAt,
      answer: callback,
    });
    const returned = handler(event, context, callback);
    if (typeof returned?.then === 'function') return Promise.race([returned, answer.promise]);
    if (returned !== undefined) return returned;
    this.answer = answer;
    return answer.promise;
  }

  /** Call a modern handler. */
  async runModern(handler) {
    modern ??= await import('./modern.mjs');
    const { header, served } = this;
    const request = modern.makeRequest(header, this.body);
    this.body = undefined; // the request has a copy
    const context = modern.makeContext(header, request, this.limitAt, this.promises);
    globalThis.Netlify.context = context;
    const result = await handler(request, context);
    if (header.mode === 'synchronous') return modern.modernFrame(result, context.cookies, served.response_bytes_max);
    return valueFrame(modern.isResponse(result) ? await modern.responseValue(result) : result);
  }

  async send({ header, stream }) {
    const { sendStream } = await import('./streaming.mjs');
    await sendStream(this.channel, header, stream, () => this.over);
  }

  /** Wait for what `waitUntil` was told of: the last frame ends the attempt, so it has to be before that. */
  async settled() {
    while (this.promises.length > 0) await this.promises.shift();
  }
}

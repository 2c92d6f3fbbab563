// A stand-in for the package `@netlify/functions`, for functions that import it where it is not
// installed. Its helpers say something to Netlify's build; what is left of them at run time is here.

/** The handler; `schedule` is read from the source, without running it. */
export const schedule = (cron, handler) => handler;

/** The handler; a body that is a stream is streamed whoever returns it. */
export const stream = (handler) => handler;

/** The handler; nothing is cached. */
export const builder = (handler) => handler;

/** There is no cache to purge. */
export const purgeCache = async () => {};

export const getNetlifyGlobal = () => globalThis.Netlify;

// The names of its types, which TypeScript that does not say `import type` imports like values.
export const BackgroundHandler = undefined;
export const Config = undefined;
export const Context = undefined;
export const Handler = undefined;
export const HandlerCallback = undefined;
export const HandlerContext = undefined;
export const HandlerEvent = undefined;
export const HandlerResponse = undefined;
export const StreamingHandler = undefined;
export const StreamingResponse = undefined;

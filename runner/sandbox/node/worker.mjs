// The worker: serves one function in JavaScript or TypeScript, one attempt at a time, and is the only
// place where its code runs. Node's standard library only.
//
// It reads a frame from its channel (descriptor 3), makes what the handler is to see, runs it and
// writes frames back; docs/architecture.md describes them. It judges nothing: what a result means is
// the runner's business.

import { openSync, readFileSync, readSync } from 'node:fs';

import { Attempt } from './attempt.mjs';
import { raisedHeader } from './errors.mjs';
import { Channel } from './frames.mjs';

const CHANNEL = 3;
const EMPTY = Buffer.alloc(0);

let served; // the first frame: what is served, and its source
let attempt; // the one that runs
let spoiled = false; // something went wrong that nobody was there to hear of

const channel = new Channel(CHANNEL, (limitAt, header, body) => {
  if (served) void answer(limitAt, header, body);
  else serve(header, body);
});

function serve(header, source) {
  served = { ...header, source: Buffer.from(source) };
  process.argv = [process.execPath, header.path];
}

async function answer(limitAt, header, body) {
  attempt = new Attempt({ channel, served, limitAt, header, body: header.has_body ? body : null });
  const last = await attempt.run();
  attempt = undefined;
  if (spoiled || leftoverChildren()) last.header.retire = true;
  write(last.header, last.body);
}

function write(header, body) {
  try {
    void channel.write(header, body);
  } catch (error) {
    void channel.write(raisedHeader(error, { retire: header.retire }), EMPTY);
  }
}

// An error that nothing awaits is the attempt's, if one runs.
process.on('uncaughtException', (error) => {
  spoiled = true;
  if (attempt) attempt.fail(error);
  else console.error(error);
});

// The event loop has nothing left that could bring a pending result about.
process.on('beforeExit', () => attempt?.starve());

// Pipes are written to as they fill: what is printed is on its way before the result is, and in order.
for (const stream of [process.stdout, process.stderr]) stream._handle?.setBlocking?.(true);

let children;

/** Whether the handler left processes behind that still run. */
function leftoverChildren() {
  if (process.platform !== 'linux') return false;
  const list = Buffer.alloc(4096);
  try {
    // Whoever starts one does so on the main thread, and who lost its parent becomes a child of this one.
    children ??= openSync(`/proc/self/task/${process.pid}/children`);
    const length = readSync(children, list, 0, list.length, 0);
    return length > 0 && list.latin1Slice(0, length).trim().split(' ').some(runs);
  } catch {
    return false; // a kernel that does not tell
  }
}

function runs(pid) {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}

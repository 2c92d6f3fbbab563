// The channel to the runner: frames in, frames out. docs/architecture.md says what stands in them.
// It knows nothing of what they mean, and never loses or holds back a byte.

import { Socket } from 'node:net';

import { InvalidResult } from './errors.mjs';

const LENGTH_BYTES = 4;
const MOMENT_BYTES = 8;
const START_BYTES = LENGTH_BYTES + MOMENT_BYTES + LENGTH_BYTES;
const HEADER_BYTES_MAX = 1024 * 1024; // as in the runner's envelopes
const JOIN_BYTES_MAX = 65536; // up to here copying a body costs less than a second buffer for the kernel

/** Both ways of one descriptor. Ends the process where the runner ends the channel. */
export class Channel {
  /** `onFrame(limitAt, header, body)`: called once for each frame that has come. */
  constructor(descriptor, onFrame) {
    this.onFrame = onFrame;
    this.rest = undefined; // of the length of the next frame
    this.frame = undefined; // one that has not come as one
    this.filled = 0;
    this.socket = new Socket({ fd: descriptor, readable: true, writable: true });
    this.socket.on('data', (data) => this.receive(data));
    this.socket.on('end', () => process.exit(0));
    this.socket.on('error', () => process.exit(74));
  }

  receive(data) {
    if (this.rest) data = Buffer.concat([this.rest, data]);
    this.rest = undefined;
    while (data.length > 0) {
      if (!this.frame) {
        if (data.length < LENGTH_BYTES) {
          this.rest = data;
          return;
        }
        const length = LENGTH_BYTES + data.readUInt32BE(0);
        if (data.length >= length) {
          this.deliver(data.subarray(0, length));
          data = data.subarray(length);
          continue;
        }
        this.frame = Buffer.allocUnsafeSlow(length); // at once: a large one has no room for two of it
        this.filled = 0;
      }
      const taken = data.copy(this.frame, this.filled);
      this.filled += taken;
      data = data.subarray(taken);
      if (this.filled === this.frame.length) {
        const { frame } = this;
        this.frame = undefined;
        this.deliver(frame);
      }
    }
  }

  deliver(frame) {
    const end = START_BYTES + frame.readUInt32BE(START_BYTES - LENGTH_BYTES);
    const header = JSON.parse(frame.utf8Slice(START_BYTES, end));
    this.onFrame(frame.readDoubleBE(LENGTH_BYTES), header, frame.subarray(end));
  }

  /**
   * Send a frame. Returns a promise if the runner is slow, to be waited for before the next one.
   * Throws `InvalidResult` if the header is no JSON, or too much.
   */
  write(header, body) {
    const text = headerText(header);
    const size = text.length + body.length;
    const start = Buffer.allocUnsafe(2 * LENGTH_BYTES);
    start.writeUInt32BE(LENGTH_BYTES + size, 0);
    start.writeUInt32BE(text.length, LENGTH_BYTES);
    const goesOn = this.send(start, text, body, size);
    return goesOn ? undefined : new Promise((resolve) => this.socket.once('drain', resolve));
  }

  send(start, text, body, size) {
    if (size <= JOIN_BYTES_MAX) return this.socket.write(Buffer.concat([start, text, body]));
    this.socket.cork();
    this.socket.write(start);
    this.socket.write(text);
    const goesOn = this.socket.write(body);
    this.socket.uncork();
    return goesOn;
  }

  /** Whether the channel alone keeps the process alive. */
  hold(alive) {
    if (alive) this.socket.ref();
    else this.socket.unref();
  }
}

function headerText(header) {
  const text = Buffer.from(jsonOf(header));
  if (text.length > HEADER_BYTES_MAX) {
    throw unsendable(`they have ${text.length} bytes as JSON; ${HEADER_BYTES_MAX} are allowed`);
  }
  return text;
}

function jsonOf(header) {
  try {
    return JSON.stringify(header);
  } catch (error) {
    throw unsendable(error.message.split('\n', 1)[0]);
  }
}

function unsendable(reason) {
  return new InvalidResult(`The status or the headers that the handler returned cannot be sent: ${reason}.`);
}

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
    this.parts = [];
    this.size = 0;
    this.socket = new Socket({ fd: descriptor, readable: true, writable: true });
    this.socket.on('data', (data) => this.receive(data));
    this.socket.on('end', () => process.exit(0));
    this.socket.on('error', () => process.exit(74));
  }

  receive(data) {
    this.parts.push(data);
    this.size += data.length;
    while (this.size >= LENGTH_BYTES) {
      if (this.parts.length > 1 && this.parts[0].length < LENGTH_BYTES) this.join();
      const length = LENGTH_BYTES + this.parts[0].readUInt32BE(0);
      if (this.size < length) return;
      this.join();
      const [whole] = this.parts;
      this.size -= length;
      this.parts = this.size > 0 ? [whole.subarray(length)] : [];
      this.deliver(whole.subarray(0, length));
    }
  }

  join() {
    if (this.parts.length > 1) this.parts = [Buffer.concat(this.parts, this.size)];
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

// The clock of the limit: the machine's boot clock, which runs on while it is suspended.

import { readFileSync } from 'node:fs';
import { uptime } from 'node:os';

const TICKS_PER_S = 100; // of /proc, on every Linux

let isTrue; // whether the system's uptime is that of the machine

/** How far `bootS` may be behind, in seconds: uptimes are told in hundredths. */
export const BEHIND_S = 1 / TICKS_PER_S;

/** Seconds of the boot clock, at most `BEHIND_S` behind it. */
export function bootS() {
  if (process.platform !== 'linux') return Number(process.hrtime.bigint()) / 1e9;
  isTrue ??= Math.abs(uptime() - startedS() - process.uptime()) < 1;
  return isTrue ? uptime() : startedS() + process.uptime();
}

/** When this process began. Some containers have an uptime of their own, but this they leave alone. */
function startedS() {
  const fields = readFileSync('/proc/self/stat', 'latin1').split(') ').at(-1).split(' ');
  return Number(fields[19]) / TICKS_PER_S;
}

"""Load by many users: each has a connection, asks, thinks, and asks again, and waits for nobody else.

While a server keeps up, requests come at the rate that is asked for, at moments that chance decides. It takes
`wrk`, which is quick enough not to be measured itself.
"""

import math
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import Self

from benchmarks.errors import give_up
from benchmarks.load import run_generator
from benchmarks.web import status_of

__all__ = ["Crowd", "apply_users"]

USERS = 512
MARGIN_S = 40.0
HEALTH_EVERY_S = 0.1

# Who is accepted is counted by its status. Of the latencies wrk knows only all together; the one that is
# asked for is exceeded by no more than one in a hundred of those that were accepted, whoever the others are.
SCRIPT = """
local pause_ms = %f
wrk.method = "%s"
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init(args)
  math.randomseed(2024)
  done_n, refused, odd, hintless = 0, 0, 0, 0
end
function delay() return math.floor(-pause_ms * math.log(1 - math.random()) + 0.5) end
function response(status, headers, body)
  if status >= 200 and status < 300 then done_n = done_n + 1
  elseif status == 429 or status == 503 then
    refused = refused + 1
    if not (headers["Retry-After"] or headers["retry-after"]) then hintless = hintless + 1 end
  else odd = odd + 1 end
end
done = function(summary, latency, requests)
  local t = threads[1]
  local n, refused = t:get("done_n"), t:get("refused")
  local share = n / math.max(1, n + refused + t:get("odd"))
  io.write(string.format("RESULT %%d %%d %%d %%d %%d %%d %%d %%d\\n",
    n, refused, t:get("odd"), t:get("hintless"),
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    summary.duration, latency:percentile(50), latency:percentile(100 - math.min(1, math.max(0.001, share)))))
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """What came of it. Times are seconds.

    `done` were answered 2xx, `refused` 429 or 503 (`hintless` of them without Retry-After); `odd` otherwise
    or not at all. At most one in a hundred of what was done took longer than `p99_s`. `health_p99_s` is
    that of /healthz meanwhile, infinite if it once said no.
    """

    asked_per_s: float
    done: int
    refused: int
    odd: int
    hintless: int
    duration_s: float
    p50_s: float
    p99_s: float
    health_p99_s: float

    @property
    def is_served(self) -> bool:
        """Whether the server kept up."""
        return self.refused <= 0.01 * self.done and self.done >= 0.85 * self.asked_per_s * self.duration_s


def apply_users(port: int, path: str, *, per_s: float, duration_s: int) -> Crowd:
    """POST to `path` without a body, `per_s` times a second if the server keeps up."""
    if shutil.which("wrk") is None:
        give_up("This measure needs wrk: install it.")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % (1000 * USERS / per_s, "POST"))
        script.flush()
        arguments = ("-t1", f"-c{USERS}", f"-d{duration_s}s", "--timeout", "30s", "-s", script.name)
        with _Health(port) as health:
            command = ("wrk", *arguments, f"http://127.0.0.1:{port}{path}")
            result = run_generator(command, bound_s=duration_s + MARGIN_S)
    done, refused, odd, hintless, broken, duration_us, p50_us, p99_us = result
    return Crowd(
        asked_per_s=per_s,
        done=done,
        refused=refused,
        odd=odd + broken,
        hintless=hintless,
        duration_s=duration_us / 1e6,
        p50_s=p50_us / 1e6,
        p99_s=p99_us / 1e6,
        health_p99_s=health.p99_s(),
    )


class _Health:
    """Asks for /healthz ten times a second while entered."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._took_s: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stop.wait(HEALTH_EVERY_S):
            began = time.monotonic()
            ok = status_of(self._port, "/healthz") == 200
            self._took_s.append(time.monotonic() - began if ok else math.inf)

    def p99_s(self) -> float:
        """What all but one in a hundred took at most."""
        ordered = sorted(self._took_s)
        return ordered[max(0, math.ceil(0.99 * len(ordered)) - 1)] if ordered else math.inf

"""Load: a number of kept connections, each with one request under way, for a number of seconds.

`wrk` if it is installed, since it takes the least of the processors from what is measured; otherwise Locust.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import give_up

__all__ = ["Load", "apply_load", "generator", "run_generator"]

MARGIN_S = 20.0
LOCUSTFILE = Path(__file__).with_name("locustfile.py")

# What wrk prints for people is rounded; this is for us. It counts every answer that is not the wanted one.
SCRIPT = """
wrk.method = "%s"
done = function(summary, latency, requests)
  io.write(string.format("RESULT %%d %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a load came to. Times are seconds; `failed` counts requests without the wanted answer."""

    requests: int
    failed: int
    duration_s: float
    p50_s: float
    p99_s: float

    @property
    def per_s(self) -> float:
        """Requests per second."""
        return self.requests / self.duration_s


def generator() -> str:
    """What makes the load on this machine."""
    return "wrk" if shutil.which("wrk") else "Locust (install wrk for less disturbance)"


def apply_load(
    port: int, path: str, *, connections: int, duration_s: int, method: str = "GET", strict: bool = True
) -> Load:
    """Load `path`. Ends the benchmark if an answer was no 2xx: such a figure would mean nothing.

    Unless `strict`, some may be refused: a gateway does so where the processors are taken by something else.
    """
    made = _wrk if shutil.which("wrk") else _locust
    load = made(f"http://127.0.0.1:{port}", path, connections, duration_s, method)
    if (strict and load.failed) or load.failed > load.requests / 2 or not load.requests:
        message = f"{load.failed} of {load.requests} requests for {path} failed at {connections} connections."
        give_up(message)
    return load


def _wrk(base: str, path: str, connections: int, duration_s: int, method: str) -> Load:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % method)
        script.flush()
        command = ("wrk", "-t1", f"-c{connections}", f"-d{duration_s}s", "-s", script.name, base + path)
        return _run(command, duration_s)


def _locust(base: str, path: str, connections: int, duration_s: int, method: str) -> Load:
    users = ("--users", str(connections), "--spawn-rate", "1000", "--run-time", f"{duration_s}s")
    command = (sys.executable, "-m", "locust", "--headless", "--only-summary", "--skip-log-setup", *users)
    environment = {**os.environ, "LOAD_METHOD": method, "LOAD_PATH": path}
    return _run((*command, "--locustfile", str(LOCUSTFILE), "--host", base), duration_s, environment)


def run_generator(
    command: tuple[str, ...], *, bound_s: float, environment: Mapping[str, str] | None = None
) -> list[int]:
    """What a generator of load says after the word RESULT. Ends the benchmark if it says nothing by then."""
    try:
        done = subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=bound_s,
            cwd=Path.home(),
            env=environment,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        give_up(f"{error}. Was this machine, or the benchmark, paused meanwhile?")
    found = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    if found is None:
        give_up(f"{command[0]} said something unexpected:\n{done.stdout}")
    return [int(figure) for figure in found[1].split()]


def _run(command: tuple[str, ...], duration_s: int, environment: Mapping[str, str] | None = None) -> Load:
    result = run_generator(command, bound_s=duration_s + MARGIN_S, environment=environment)
    requests, duration_us, p50_us, p99_us, refused, broken = result
    return Load(
        requests=requests,
        failed=refused + broken,
        duration_s=duration_us / 1e6,
        p50_s=p50_us / 1e6,
        p99_s=p99_us / 1e6,
    )

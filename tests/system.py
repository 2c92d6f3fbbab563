"""A whole system for tests: a real nats-server, gateways and runners as real processes, HTTP in front.

    async with System(tmp_path, {"hello": SOURCE}) as system:
        await system.start_gateway()
        await system.start_runner()
        answer = await system.post("hello")

Whatever a test started is killed at its end, and nothing may be left: a guard or a worker that
outlives its runner fails the test.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from quarterhour.lifecycle import FINAL
from tests.nats_server import NatsServer, free_port
from tests.waiting import eventually, whole_lines

__all__ = ["Process", "System", "alive", "descendants", "parent"]

START_S = 60.0
REPOSITORY = Path(__file__).parent.parent


@dataclass
class Process:
    """A gateway or a runner that a test started."""

    popen: subprocess.Popen[bytes]
    log_path: Path
    port: int = 0
    _counted: int = field(default=0)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    @property
    def log(self) -> list[dict[str, Any]]:
        """The facts it has logged so far."""
        return [json.loads(line) for line in whole_lines(self.log_path) if line.startswith("{")]

    def facts(self, event: str) -> list[dict[str, Any]]:
        """The facts of one kind."""
        return [fact for fact in self.log if fact["event"] == event]

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.popen.send_signal(number)

    async def ended(self, deadline_s: float = 30.0) -> int:
        """Wait for its end; its exit status, negative for a signal."""
        return await asyncio.to_thread(self.popen.wait, deadline_s)

    async def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.send(signal.SIGKILL)
        await self.ended()


def descendants(pid: int) -> set[int]:
    """The ids of all processes below `pid` that live now (Linux)."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: set[int] = set()
    queue = [pid]
    while queue:
        for child in children.get(queue.pop(), ()):
            found.add(child)
            queue.append(child)
    return found


def parent(pid: int) -> int:
    """The process id of a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class System:
    """NATS, and the processes that a test starts around it. `functions`: source by file name (no `.py`).

    `lease_s` is long, so that a machine that stalls ends none; a test that waits for the end of one says so.
    """

    def __init__(
        self,
        folder: Path,
        functions: Mapping[str, str],
        *,
        lease_s: float = 30.0,
        max_payload: int = 8 * 1024 * 1024,
        nats_text: str = "",
    ) -> None:
        self.folder = folder
        self.functions = folder / "functions"
        self.functions.mkdir()
        for name, source in functions.items():
            self.write(name, source)
        self.nats = NatsServer(
            folder / "nats", sync_interval="always", max_payload=max_payload, text=nats_text
        )
        self.lease_s = lease_s
        self.processes: list[Process] = []
        self._seen: set[int] = set()
        self._http = httpx.AsyncClient(timeout=60, verify=False)  # over HTTP: nothing is to be verified
        self.gateway: Process | None = None

    def write(self, name: str, source: str) -> None:
        """Write a function's file."""
        path = self.functions / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.nats.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()
        for process in self.processes:
            self._seen |= descendants(process.pid)
            process.popen.kill()
        for process in self.processes:
            await process.ended()
        self.nats.kill()
        try:
            await eventually(
                lambda: not [pid for pid in self._seen if alive(pid)], what="no process was left"
            )
        finally:
            for pid in self._seen:
                if alive(pid):
                    os.kill(pid, signal.SIGKILL)
            if kind is not None:
                self._show_logs()

    def _show_logs(self) -> None:
        for process in self.processes:
            sys.stdout.write(f"--- {process.log_path.name}\n{process.log_path.read_text()[-6000:]}\n")

    async def start_gateway(self, *flags: str, script: tuple[str, ...] = ("-m", "quarterhour")) -> Process:
        """Start a gateway and wait until it is ready. The last one started is the one requests go to."""
        port = free_port()
        process = self._start("gateway", script, "--port", str(port), *flags)
        process.port = port
        self.gateway = process
        await eventually(self._gateway_ready, deadline_s=START_S, what="the gateway was ready")
        return process

    async def start_runner(self, *flags: str, script: tuple[str, ...] = ("-m", "quarterhour")) -> Process:
        """Start a runner and wait until it takes work."""
        process = self._start("runner", script, "--functions", str(self.functions), *flags)
        await eventually(
            lambda: process.facts("runner_started") or process.popen.poll() is not None,
            deadline_s=START_S,
            what="the runner was started",
        )
        assert process.popen.poll() is None, process.log_path.read_text()
        if self.gateway is not None:
            await eventually(
                lambda: self._known(process), deadline_s=START_S, what="the gateways knew the runner"
            )
        return process

    def _start(self, what: str, script: tuple[str, ...], *flags: str) -> Process:
        log_path = self.folder / f"{what}-{len(self.processes)}.log"
        command = [sys.executable, *script, what, *flags, "--lease", f"{self.lease_s:g}"]
        environment = {
            **os.environ,
            "QUARTERHOUR_BROKER": self.broker(what),
            "QUARTERHOUR_LOG_FORMAT": "json",
            "PYTHONPATH": str(REPOSITORY),
        }
        if what == "gateway":  # one that is late because of other tests refuses nobody
            environment["QUARTERHOUR_LATENESS_LIMIT"] = "60"
        with log_path.open("wb") as log:
            popen = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )
        process = Process(popen=popen, log_path=log_path)
        self.processes.append(process)
        return process

    def broker(self, what: str) -> str:
        """The broker's URL for a gateway or a runner."""
        return self.nats.url

    async def _gateway_ready(self) -> bool:
        assert self.gateway is not None
        assert self.gateway.popen.poll() is None, self.gateway.log_path.read_text()
        try:
            return (await self._http.get(f"{self.url}/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    async def _known(self, runner: Process) -> bool:
        """Whether every gateway that lives knows the runner, and the functions that it serves."""
        (started,) = runner.facts("runner_started")
        gateways = [process for process in self.processes if process.port and process.popen.poll() is None]
        return all([await self._knows(gateway, started) for gateway in gateways])

    async def _knows(self, gateway: Process, started: Mapping[str, Any]) -> bool:
        url = f"http://127.0.0.1:{gateway.port}"
        try:
            targets = (await self._http.get(f"{url}/v1/runners/targets")).json()
            listed = (await self._http.get(f"{url}/v1/functions")).json()
        except httpx.TransportError:  # it ends just now
            return False
        # By its name: a runner that was lost a moment ago may have left its address to this one.
        heard = any(target["labels"]["runner"] == started["runner"] for target in targets)
        return heard and not listed["unread"] and len(listed["functions"]) >= started["functions"]

    @property
    def url(self) -> str:
        """The gateway's address."""
        assert self.gateway is not None, "no gateway was started"
        return f"http://127.0.0.1:{self.gateway.port}"

    def remember(self, process: Process) -> None:
        """Note what runs below `process` now: all of it must be gone at the end of the test."""
        self._seen |= descendants(process.pid)

    async def post(self, name: str, **kwargs: Any) -> httpx.Response:
        """POST to a function."""
        return await self._http.post(f"{self.url}/.netlify/functions/{name}", **kwargs)

    async def enqueue(self, name: str, **kwargs: Any) -> str:
        """POST to a background function; the id of the accepted invocation."""
        answer = await self.post(name, **kwargs)
        assert answer.status_code == 202, answer.text
        return str(answer.headers["x-nf-request-id"])

    async def cancel(self, invocation_id: str) -> httpx.Response:
        """DELETE an invocation."""
        return await self._http.delete(f"{self.url}/v1/invocations/{invocation_id}")

    async def get(self, path: str) -> httpx.Response:
        """GET from the gateway."""
        return await self._http.get(f"{self.url}{path}")

    async def status(self, invocation_id: str, *, wait_s: float = 0) -> dict[str, Any]:
        """What the gateway says of an invocation, after `wait_s` at most; empty if it cannot say now."""
        answer = await self.get(f"/v1/invocations/{invocation_id}?wait={wait_s:g}")
        if answer.status_code != 200:
            return {}
        status: dict[str, Any] = answer.json()
        return status

    async def in_state(self, invocation_id: str, *states: str, deadline_s: float = 30.0) -> dict[str, Any]:
        """Wait until the invocation is in one of the states."""
        wait_s = 1.0 if FINAL.issuperset(states) else 0.0  # then the gateway says when it ends

        async def check() -> dict[str, Any] | None:
            status = await self.status(invocation_id, wait_s=wait_s)
            return status if status.get("state") in states else None

        found: dict[str, Any] | None = await eventually(
            check, deadline_s=deadline_s, what=f"{invocation_id} was {' or '.join(states)}"
        )
        assert found is not None
        return found

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over the gateway and all runners that live."""
        pages = [(await self.get("/metrics")).text]
        for runner in self.processes:
            # While it lives, its address is nobody else's.
            if runner.popen.poll() is None and runner.facts("runner_started"):
                try:
                    pages.append(await self.metrics_page(runner))
                except httpx.TransportError:  # it ends just now
                    continue
        return sum(_samples(page, name, labels) for page in pages)

    async def metrics_page(self, of: Process) -> str:
        """The metrics of one process, as it shows them: a gateway or a runner."""
        started = of.facts("runner_started")
        address = started[0]["metrics"] if started else f"127.0.0.1:{of.port}"
        return (await self._http.get(f"http://{address}/metrics")).text


def _samples(page: str, name: str, labels: Mapping[str, str]) -> float:
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    total = 0.0
    for line in page.splitlines():
        series, _, value = line.rpartition(" ")
        if series.partition("{")[0] == name and all(label in series for label in wanted):
            total += float(value)
    return total

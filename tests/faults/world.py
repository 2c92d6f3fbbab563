"""The world in which faults are made: real servers, gateways and runners, started again when they end.

It knows every process: NATS, gateways, runners, their guards and workers. It starts and ends them and
never hurts one by itself; `faults.py` does.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import httpx
import psutil

from quarterhour.processes import background
from tests.faults import functions
from tests.faults.proxy import Link, Proxy
from tests.faults.shifted import write_offset
from tests.nats_cluster import NatsCluster
from tests.nats_server import NatsServer, free_port
from tests.process.sandboxes import adopting
from tests.waiting import eventually

__all__ = ["GATEWAYS", "RUNNERS", "Member", "World"]

GATEWAYS, RUNNERS = 2, 3
REPOSITORY = Path(__file__).parent.parent.parent
START_S = 60.0
END_S = 20.0
AGAIN_S = (0.1, 1.0)  # how long a supervisor takes to start again what has ended
LOOK_EVERY_S = 0.05


@dataclass
class Member:
    """A gateway or a runner, over all of its lives."""

    kind: Literal["gateway", "runner"]
    number: int
    link: Link
    clock: Path
    log: Path
    port: int
    popen: subprocess.Popen[bytes] | None = None
    again_at: float | None = None
    exits: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.number}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def process(self) -> psutil.Process | None:
        """The process as it is now, None between two lives."""
        if self.popen is None or self.popen.poll() is not None:
            return None
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.popen.pid)
        return None

    def guards(self) -> list[psutil.Process]:
        """The guards of a runner."""
        return _children(self.process())

    def workers(self) -> list[psutil.Process]:
        """The workers of a runner."""
        return [worker for guard in self.guards() for worker in _children(guard)]


def _children(process: psutil.Process | None) -> list[psutil.Process]:
    if process is not None:
        with suppress(psutil.Error):
            return [one for one in process.children() if one.status() != psutil.STATUS_ZOMBIE]
    return []


class World:
    """NATS of one server or of three, two gateways, three runners; `async with` starts and ends them."""

    def __init__(
        self,
        folder: Path,
        *,
        clustered: bool,
        lease_s: float,
        chance: random.Random,
        disk: Path | None = None,
    ) -> None:
        """`disk`: a small one for the only server's data; `chance`: of small delays."""
        self.folder = folder
        self.lease_s = lease_s
        self.chance = chance
        self.cluster = NatsCluster(folder) if clustered else None
        self.disk = disk
        store = {"jetstream": {"store_dir": str(disk), "sync_interval": "always"}} if disk else None
        single = NatsServer(folder / "nats", sync_interval="always", more=store)
        self.servers: Sequence[NatsServer] = self.cluster.servers if self.cluster else [single]
        self.members: list[Member] = []
        self._down: set[int] = set()  # numbers of the servers that a fault keeps down
        self._stack = AsyncExitStack()
        self._before: set[int] = set()

    @property
    def traits(self) -> frozenset[str]:
        """What it has that some faults need."""
        disk = {"disk"} if self.disk is not None else set[str]()
        return frozenset({"cluster" if self.cluster else "single"} | disk)

    @property
    def gateways(self) -> list[Member]:
        return [member for member in self.members if member.kind == "gateway"]

    @property
    def runners(self) -> list[Member]:
        return [member for member in self.members if member.kind == "runner"]

    @property
    def url(self) -> str:
        """NATS itself, with nothing in between."""
        return self.cluster.url if self.cluster else self.servers[0].url

    @property
    def ledger(self) -> Path:
        """Where the functions write."""
        return self.folder / functions.LEDGER

    # Starting

    async def __aenter__(self) -> Self:
        self._before = set(_living_children())
        self._stack.enter_context(adopting())
        try:
            await self._start_all()
        except BaseException:
            await self._end_all()
            raise
        return self

    async def _start_all(self) -> None:
        self._write_functions()
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in self.servers))
        if self.cluster is not None:
            await self.cluster.ready()
        for number in range(GATEWAYS):
            self.members.append(await self._member("gateway", number, free_port()))
        for number in range(RUNNERS):
            self.members.append(await self._member("runner", number, 0))
        for member in self.members:
            self._start(member)
        async with background(self.supervise()):
            await self.all_ready()

    def _write_functions(self) -> None:
        folder = self.folder / "functions"
        folder.mkdir()
        for name, source in functions.sources().items():
            (folder / f"{name}.py").write_text(source)

    async def _member(self, kind: Literal["gateway", "runner"], number: int, port: int) -> Member:
        proxies = [await self._stack.enter_async_context(Proxy(server.port)) for server in self.servers]
        query = "?replicas=3" if self.cluster else "?sync_interval=always"
        clock = self.folder / f"{kind}-{number}.clock"
        write_offset(clock, 0.0)
        log = self.folder / f"{kind}-{number}.log"
        return Member(kind, number, Link(proxies, query=query), clock, log, port)

    def _start(self, member: Member) -> None:
        own = {
            "gateway": ("--port", str(member.port)),
            "runner": ("--functions", "functions", "--slots", "8", "--drain", "2"),
        }[member.kind]
        command = [sys.executable, "-m", "tests.faults.shifted", str(member.clock), member.kind, *own]
        environment = {**os.environ, "QUARTERHOUR_BROKER": member.link.url, "PYTHONPATH": str(REPOSITORY)}
        with member.log.open("ab") as log:
            member.popen = subprocess.Popen(
                [*command, "--lease", f"{self.lease_s:g}", "--log-format", "json"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )
        member.again_at = None

    async def all_ready(self) -> None:
        """Return when every gateway knows every function and every runner."""
        async with httpx.AsyncClient(timeout=5, trust_env=False) as http:
            for gateway in self.gateways:
                await eventually(
                    lambda at=gateway.url: self._is_ready(http, at),  # type: ignore[misc]
                    deadline_s=START_S,
                    what=f"{gateway.name} knew all functions and runners",
                )

    async def _is_ready(self, http: httpx.AsyncClient, url: str) -> bool:
        try:
            ready = await http.get(f"{url}/readyz")
            known = (await http.get(f"{url}/v1/functions")).json()["functions"]
        except (httpx.TransportError, ValueError, KeyError):
            return False
        served = {each["name"]: each["runners"] for each in known}
        return ready.status_code == 200 and served == dict.fromkeys(functions.FUNCTIONS, RUNNERS)

    # Supervising

    async def supervise(self) -> None:
        """Start again whatever ends, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for member in self.members:
                self._look_after(member)
            for number, server in enumerate(self.servers):
                if not server.running and number not in self._down:
                    await asyncio.sleep(self.chance.uniform(*AGAIN_S))
                    await self.start_server(number)

    def _look_after(self, member: Member) -> None:
        if member.popen is None or member.popen.poll() is None:
            return
        now = time.monotonic()
        if member.again_at is None:
            member.exits.append(member.popen.returncode)
            member.again_at = now + self.chance.uniform(*AGAIN_S)
        elif now >= member.again_at:
            self._start(member)

    async def end_server(self, number: int, *, clean: bool) -> None:
        """End a server, by SIGTERM or SIGKILL; it stays down until `start_server`."""
        self._down.add(number)
        server = self.servers[number]
        await asyncio.to_thread(server.stop if clean else server.kill)

    async def start_server(self, number: int) -> None:
        """Start a server that is down. One that cannot start now is tried again by the supervisor."""
        self._down.add(number)  # nobody else starts it meanwhile
        try:
            if not self.servers[number].running:
                with suppress(RuntimeError):
                    await asyncio.to_thread(self.servers[number].start)
        finally:
            self._down.discard(number)

    def fill_disk(self) -> None:
        """Leave no room on the disk of NATS."""
        assert self.disk is not None
        with suppress(OSError), (self.disk / "ballast").open("wb") as ballast:
            while True:
                ballast.write(bytes(64 * 1024))
                ballast.flush()

    def free_disk(self) -> None:
        """Undo `fill_disk`."""
        assert self.disk is not None
        (self.disk / "ballast").unlink(missing_ok=True)

    def clean_up(self, pids: Sequence[int]) -> None:
        """Let those go on that a fault has stopped."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def heal(self) -> None:
        """Every link and clock is right again."""
        for member in self.members:
            member.link.heal()
            write_offset(member.clock, 0.0)

    # Ending

    async def end_members(self) -> list[str]:
        """SIGTERM to all gateways and runners; what is left of them and theirs a while later.

        Nobody may supervise them any more.
        """
        for member in self.members:
            if member.popen is not None:
                member.popen.terminate()
        for member in self.members:
            if member.popen is not None:
                with suppress(subprocess.TimeoutExpired):
                    await asyncio.to_thread(member.popen.wait, END_S)
        servers = {server.pid for server in self.servers if server.running}
        with suppress(AssertionError):
            await eventually(lambda: not self._left(servers), deadline_s=END_S)
        left = self._left(servers)
        return [f"{pid}: {command}" for pid, command in left.items()]

    def _left(self, servers: set[int]) -> dict[int, str]:
        children = _living_children()
        return {pid: line for pid, line in children.items() if pid not in servers | self._before}

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end_all()

    async def _end_all(self) -> None:
        for pid in _living_children():
            if pid not in self._before:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for member in self.members:
            if member.popen is not None:
                await asyncio.to_thread(member.popen.wait)
        for server in self.servers:
            server.kill()
        await self._stack.aclose()


def _living_children() -> dict[int, str]:
    """All that lives below this process, with what it was started as."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = " ".join(process.cmdline())
    return found

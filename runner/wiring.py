"""Wiring: the runner's rooms are put together, started, and ended in the right order."""

import asyncio
import functools
import math
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from quarterhour.body import INLINE_BYTES_MAX
from quarterhour.broker import PATIENCE_S, Broker, BrokerOptions, connect_patiently
from quarterhour.broker.port import Beat
from quarterhour.clock import Clock, SystemClock
from quarterhour.errors import BrokerUnavailable
from quarterhour.function import Manifest
from quarterhour.ids import new_process_name
from quarterhour.processes import (
    background,
    end_with_parent,
    settle_memory,
    stop_on_signals,
    unless_stopped,
)
from quarterhour.settings import RunnerSettings
from quarterhour.users import check_users
from runner.attempt import Attempts
from runner.catalog import Catalog, Entry, load_catalog
from runner.clockwork import Clockwork
from runner.dependencies import Dependencies
from runner.leases import Leases
from runner.metrics import Metrics, serve_metrics
from runner.protection import check_readable, missing_protections
from runner.pull import Puller
from runner.reload import Difference, Reloader, changes
from runner.sandbox.installing import remove_unused
from runner.sandbox.job import LogLine
from runner.sandbox.pool import Sandbox, SandboxSettings
from runner.sandbox.runtimes import RUNTIMES
from runner.serve import Server
from runner.settlement import Settlements
from runner.slots import Slots

__all__ = ["Runner", "run"]

BEAT_S = 1.0
CHECK_ANNOUNCED_S = 10.0
LAST_S = 5.0  # after the drain time, for what the broker is still to be told
SETTLEMENTS_PER_SLOT = 16
INHERITED = ("PATH", "HOME", "LANG", "TZ")

log = structlog.get_logger()


class Runner:
    """One runner: a catalog of functions, a connection to the broker, a sandbox, and what joins them."""

    def __init__(
        self,
        settings: RunnerSettings,
        broker: Broker,
        sandbox: Sandbox,
        metrics: Metrics,
        clock: Clock,
        *,
        dependencies: Dependencies,
    ) -> None:
        self.name = new_process_name()
        self._settings = settings
        self._dependencies = dependencies
        self._reloads = asyncio.Lock()
        self._broker = broker
        self._sandbox = sandbox
        self._metrics = metrics
        self._clock = clock
        self._metrics_address: str | None = None
        self._entries: Mapping[str, Entry] = {}
        self._draining = False
        self._tasks = asyncio.TaskGroup()
        slots = Slots(settings.slots)
        self._leases = Leases(broker, broker, lease_s=settings.lease_s, clock=clock)
        settlements = Settlements(
            work=broker,
            kept=broker,
            metrics=metrics,
            clock=clock,
            at_once=SETTLEMENTS_PER_SLOT * settings.slots,
        )
        self._attempts = Attempts(
            runner=self.name,
            work=broker,
            kept=broker,
            bodies=broker,
            sandbox=sandbox,
            find=self._find,
            leases=self._leases,
            settlements=settlements,
            metrics=metrics,
            clock=clock,
            waiting_age_s=settings.waiting_age_s,
        )
        self._puller = Puller(work=broker, slots=slots, attempts=self._attempts, tasks=self._tasks)
        self._clockwork = Clockwork(self._puller.ring, clock)
        self._server = Server(
            sandbox=sandbox,
            bodies=broker,
            slots=slots,
            find=self._find,
            metrics=metrics,
            clock=clock,
            tasks=self._tasks,
        )

    def _find(self, name: str) -> Entry | None:
        return self._entries.get(name)

    @property
    def _manifests(self) -> list[Manifest]:
        return [entry.manifest for entry in self._entries.values()]

    async def run(self, catalog: Catalog, stop: asyncio.Event) -> None:
        """Run until `stop` is set, then drain."""
        port, server, thread = serve_metrics(
            self._metrics, self._settings.metrics_host, self._settings.metrics_port
        )
        self._metrics_address = f"{_advertised(self._settings)}:{port}"
        try:
            async with self._tasks, background(self._leases.keep()):
                await unless_stopped(stop, self._start(catalog))
                # Not before: whoever hears a runner takes its functions for announced.
                async with background(self._look_after()):
                    await self._work(stop)
                    await self._drain()
        finally:
            await asyncio.to_thread(server.shutdown)
            server.server_close()
            thread.join()

    async def _work(self, stop: asyncio.Event) -> None:
        async with background(
            self._puller.listen(), self._puller.run(), self._clockwork.run(), self._follow_changes()
        ):
            await stop.wait()

    async def _start(self, catalog: Catalog) -> None:
        self._entries = catalog.entries
        await self._keep_workers()
        self._metrics.start_at_zero(self._manifests)
        await self._tell(self._announce, give_up_at=self._clock.boot() + PATIENCE_S)
        if self._settings.withdraw_missing:
            gone = [name for name in await self._broker.functions() if name not in self._entries]
            await self._broker.withdraw(gone)
        await self._broker.answer_who_runs(self._attempts.running)
        await self._broker.on_cancelled(self._attempts.cancel)
        await self._broker.serve(self.name, self._server.take)
        await self._broker.on_roll_call(self._beat)
        self._puller.serve(list(self._entries))
        self._clockwork.serve(self._manifests)
        await self._beat()
        settle_memory()
        log.info(
            "runner_started",
            runner=self.name,
            functions=len(self._entries),
            slots=self._settings.slots,
            metrics=self._metrics_address,
        )

    async def _announce(self) -> None:
        await self._broker.prepare([manifest for manifest in self._manifests if manifest.has_queue])
        await self._broker.announce(self._manifests)

    async def _follow_changes(self) -> None:
        """Serve what is saved, if the folder is to be watched."""
        if not self._settings.watch:
            return
        read = functools.partial(_read_catalog, self._settings, self._dependencies)
        reloader = Reloader(read, self._entries)
        listings = [each.listing for each in RUNTIMES.values()]
        async with asyncio.TaskGroup() as tasks:
            async for paths in changes(self._settings.functions, Path.cwd(), listings):
                self._dependencies.saved(paths)
                await self._reload(reloader, tasks, paths)

    async def _reload(
        self, reloader: Reloader, tasks: asyncio.TaskGroup, paths: Collection[Path] = ()
    ) -> None:
        """Serve what was saved; what has to be installed for it is served after that, all else meanwhile."""
        async with self._reloads:
            found = await reloader.reload(paths)
            if found is not None:
                await self._change_to(*found)
        self._dependencies.begin(tasks, functools.partial(self._reload, reloader, tasks))

    async def _change_to(self, entries: Mapping[str, Entry], different: Difference) -> None:
        self._entries = entries
        await self._keep_workers()
        self._metrics.start_at_zero(different.announce)
        self._puller.serve(list(entries))
        self._clockwork.serve(self._manifests)

        async def announce() -> None:
            # A function is served before it is known, and known no more before it is not served.
            await self._broker.prepare([each for each in different.announce if each.has_queue])
            await self._broker.withdraw(different.gone)
            await self._beat()
            await self._broker.announce(different.announce)

        await self._tell(announce)
        log.info("functions_reloaded", changed=different.changed, gone=different.gone)

    async def _tell(self, announce: Callable[[], Awaitable[None]], give_up_at: float = math.inf) -> None:
        """Announce, again and again where the broker is away or slow, up to a moment of the boot clock."""
        while True:
            try:
                await announce()
            except BrokerUnavailable as error:
                if self._clock.boot() > give_up_at:
                    raise
                log.warning("functions_not_announced", why=str(error))
                await asyncio.sleep(BEAT_S)
            else:
                return

    async def _keep_workers(self) -> None:
        await self._sandbox.keep([entry.code for entry in self._entries.values() if entry.code is not None])

    async def _beat(self) -> None:
        await self._broker.beat(
            Beat(
                runner=self.name,
                functions=tuple(self._entries),
                slots=self._settings.slots,
                draining=self._draining,
                metrics=self._metrics_address,
            )
        )

    async def _look_after(self) -> None:
        """Beat once a second; announce again what a broker that lost its data has forgotten."""
        beats = 0
        while True:
            await asyncio.sleep(BEAT_S)
            beats += 1
            self._metrics.broker_connected.set(1 if self._broker.connected else 0)
            try:
                await self._beat()
                if beats % int(CHECK_ANNOUNCED_S / BEAT_S) == 0:
                    known = await self._broker.functions()
                    # Only what is missing: another runner may announce a newer version of the same.
                    if any(name not in known for name in self._entries):
                        await self._announce()
            except BrokerUnavailable as error:
                log.warning("no_beat", why=str(error))

    async def _drain(self) -> None:
        """Stop taking, finish what runs within the drain time, hand back the rest.

        What the broker does not take then is given up soon: it may be away for longer than anybody waits.
        """
        log.info("draining", runner=self.name, seconds=self._settings.drain_s)
        self._draining = self._server.draining = self._attempts.draining = True
        try:
            await self._beat()
            await self._broker.stop_serving()
        except BrokerUnavailable as error:
            log.warning("no_beat", why=str(error))
        if not await self._ended(self._settings.drain_s):
            self._attempts.stop()
            self._server.stop()
            if not await self._ended(LAST_S):
                self._attempts.give_up()
                self._server.give_up()
        log.info("drained", runner=self.name)

    async def _ended(self, within_s: float) -> bool:
        """Whether all that was taken has ended within so many seconds."""
        try:
            async with asyncio.timeout(within_s):
                await self._puller.ended()
                await self._server.ended()
                await self._attempts.ended()
        except TimeoutError:
            return False
        return True


def _advertised(settings: RunnerSettings) -> str:
    """The host under which Prometheus reaches this runner: "all addresses" is none, its name is."""
    host = settings.advertise or settings.metrics_host
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _worker_environment(settings: RunnerSettings) -> dict[str, str]:
    # Another user has no business in this one's home.
    inherited = [name for name in INHERITED if name != "HOME" or settings.function_user is None]
    names = (*inherited, *settings.function_environment)
    return {name: os.environ[name] for name in names if name in os.environ}


def _print_line(line: LogLine) -> None:
    log.info(
        "function_output",
        function=line.function,
        invocation=line.invocation,
        stream=line.stream,
        text=line.text,
    )


def _read_catalog(settings: RunnerSettings, dependencies: Dependencies, generation: int = 0) -> Catalog:
    return load_catalog(
        settings.functions,
        working_directory=Path.cwd(),
        synchronous_limit_s=settings.synchronous_limit_s,
        background_limit_s=settings.background_limit_s,
        dependencies=dependencies.of,
        generation=generation,
    )


async def run(settings: RunnerSettings) -> None:
    """Run one runner until SIGTERM or SIGINT.

    Raises `QuarterhourError`: a setting is wrong, the broker is lost for good, or its parent is gone.
    """
    clock = SystemClock()
    python = settings.function_python or Path(sys.executable)
    check_users(settings.function_user, runners=1, slots=settings.slots)
    dependencies = Dependencies(settings.functions, settings.cache_dir, RUNTIMES, python=python)
    _read_catalog(
        settings, dependencies
    )  # what is wrong with the whole folder is said before anything is done
    check_readable(settings.function_user, python, settings.functions, settings.cache_dir)
    options = BrokerOptions(
        url=settings.broker,
        name="runner",
        namespace=settings.namespace,
        lease_s=settings.lease_s,
        clock=clock,
    )
    stop = stop_on_signals()
    async with background(end_with_parent(stop)), AsyncExitStack() as stack:
        broker = await unless_stopped(stop, stack.enter_async_context(connect_patiently(options)))
        if broker is not None:
            await stack.enter_async_context(background(_end_when_lost(broker)))
            await _run(settings, broker, clock, stop, dependencies=dependencies, python=python)


async def _run(
    settings: RunnerSettings,
    broker: Broker,
    clock: Clock,
    stop: asyncio.Event,
    *,
    dependencies: Dependencies,
    python: Path,
) -> None:
    sandbox_settings = SandboxSettings(
        workers_max=settings.slots,
        python=python,
        environment=_worker_environment(settings),
        held_bytes_max=min(INLINE_BYTES_MAX, broker.body_bytes_max),  # it fits into a message to the gateway
        response_bytes_max=settings.response_bytes_max,
        stream_bytes_max=settings.stream_bytes_max,
        users=settings.function_user,
    )
    async with Sandbox(sandbox_settings, clock=clock, on_line=_print_line) as sandbox:
        for warning in broker.warnings:
            log.warning("broker", text=warning)
        for warning in missing_protections(
            settings.function_user, landlock=sandbox.landlock, root=os.geteuid() == 0
        ):
            log.warning("sandbox", text=warning)
        # What functions need is there before any of them is announced.
        await unless_stopped(stop, dependencies.install())
        await asyncio.to_thread(remove_unused, settings.cache_dir)
        if stop.is_set():
            return
        catalog = _read_catalog(settings, dependencies)
        for warning in catalog.warnings:
            log.warning("functions", text=warning)
        metrics = Metrics(slots=settings.slots)
        await Runner(settings, broker, sandbox, metrics, clock, dependencies=dependencies).run(catalog, stop)


async def _end_when_lost(broker: Broker) -> None:
    await broker.lost()
    message = "The connection to the broker is closed for good."
    raise BrokerUnavailable(message)

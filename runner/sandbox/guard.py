"""The runner's side of a guard: starts it, asks it for workers, and hears how each one ended."""

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import quarterhour
from runner.sandbox.job import Program

__all__ = ["Exit", "Guard", "GuardGone"]

ZYGOTE = Path(__file__).parent / "guarding" / "zygote.py"
AUTHORS_PACKAGE = Path(quarterhour.__file__).parent
START_S = 20.0
SEND_S = 1.0
END_S = 6.0
AGAIN_S = 1.0  # until an attempt is handed back whose worker could not be forked
READ_BYTES = 65536

Killed = Literal["limit", "lease", "memory", "asked", "guard"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a worker ended: its wait status, and why it was killed if it was.

    `guard`: with its guard, or because that could not fork it.
    """

    status: int
    killed: Killed | None


class GuardGone(Exception):  # noqa: N818 - a state of affairs
    """The guard has died."""


class Guard:
    """One guard process. `on_exit(worker)` is called once for each worker, `on_gone()` at its own end."""

    def __init__(self, python: Path, table_fd: int, rows: int, *, on_gone: Callable[[], None]) -> None:
        self._on_gone = on_gone
        self._exits: dict[int, Callable[[Exit], None]] = {}
        self._pids: dict[int, int] = {}
        self._inbox = b""
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    python,
                    *("-I", "-X", "utf8", ZYGOTE),
                    *(str(theirs.fileno()), str(table_fd), str(rows), AUTHORS_PACKAGE),
                    "quarterhour guard",
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), table_fd),
                start_new_session=True,
                env={"PATH": os.environ.get("PATH", os.defpath)},
            )
        # Sending may wait for a guard that is busy, a little; receiving is done when there is something.
        self._control.settimeout(SEND_S)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._control, self._receive)
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self.gone = False
        self.landlock = 0  # the version of it that workers are kept in; 0 for none, or while it is not ready

    async def ready(self) -> None:
        """Return when workers can be forked. Raises `GuardGone`: it died, or takes too long to start."""
        try:
            async with asyncio.timeout(START_S):
                await asyncio.shield(self._ready)
        except TimeoutError:
            self._end()
        if self.gone:
            raise GuardGone

    def spawn(
        self,
        worker: int,
        *,
        row: int,
        program: Program,
        user: tuple[int, int] | None,
        processes_max: int | None,
        descriptors: tuple[int, int, int],
        on_exit: Callable[[Exit], None],
    ) -> None:
        """Fork a worker with these descriptors (channel, stdout, stderr). Raises `GuardGone`.

        It runs as `user` (user and group id, None: as the runner does), of whom there may be `processes_max`
        processes. Its environment is read from its channel.
        """
        message = {
            "op": "spawn",
            "worker": worker,
            "row": row,
            "user": user,
            "processes_max": processes_max,
            "memory_mib": program.memory_mib,
            "command": program.launch.command,
        }
        self._send(message, descriptors)
        self._exits[worker] = on_exit

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def has_workers(self) -> bool:
        """Whether a worker of it lives."""
        return bool(self._exits)

    def kill(self, worker: int) -> None:
        """End a worker, whatever it does."""
        with suppress(GuardGone):
            self._send({"op": "kill", "worker": worker})

    async def close(self) -> None:
        """End the guard and all its workers; returns when the guard is gone."""
        self._leave()
        try:
            await asyncio.to_thread(self._process.wait, END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    def _send(self, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        data = json.dumps(message).encode() + b"\n"
        try:
            if self.gone:
                raise BrokenPipeError
            sent = socket.send_fds(self._control, [data], descriptors) if descriptors else 0
            self._control.sendall(data[sent:])
        except OSError:
            self._end()
            raise GuardGone from None

    def _receive(self) -> None:
        try:
            data = self._control.recv(READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        for line in lines:
            self._hear(json.loads(line))

    def _hear(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self.landlock = message["landlock"]
            self._ready.set_result(None)
            return
        worker: int = message["worker"]
        if "pid" in message:
            self._pids[worker] = message["pid"]
            return
        self._pids.pop(worker, None)
        exit_ = Exit(status=message["status"], killed=message["killed"])
        if exit_.killed == "guard":  # there was no room for it, and at once there would be none again
            self._loop.call_later(AGAIN_S, self._exit, worker, exit_)
        else:
            self._exit(worker, exit_)

    def _exit(self, worker: int, exit_: Exit) -> None:
        on_exit = self._exits.pop(worker, None)
        if on_exit is not None:
            on_exit(exit_)

    def _leave(self) -> None:
        if not self.gone:
            self.gone = True
            self._loop.remove_reader(self._control)
            self._control.close()

    def _end(self) -> None:
        """The guard is gone, and nobody else will end what it guarded."""
        if self.gone:
            return
        self._leave()
        if not self._ready.done():
            self._ready.set_result(None)
        self._process.kill()
        self._process.wait()
        for pid in self._pids.values():
            # The kernel has killed the workers with their guard (Linux), but not what they started.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        exits, self._exits = self._exits, {}
        self._on_gone()
        for on_exit in exits.values():
            on_exit(Exit(status=signal.SIGKILL, killed="guard"))

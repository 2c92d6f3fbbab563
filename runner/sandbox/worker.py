"""The runner's side of one worker: its channel, its two pipes, and the attempt that it is making."""

import asyncio
import json
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from struct import Struct
from typing import Protocol, cast

from quarterhour.errors import EnvelopeError
from quarterhour.invocation import pack
from runner.sandbox.frames import HEADER_BYTES_MAX, FrameReader, Large
from runner.sandbox.guard import Exit, Guard
from runner.sandbox.job import Code
from runner.sandbox.output import Output

__all__ = ["WorkerProcess", "WorkerUser"]

FRAME_HEADER_BYTES = 4
START = Struct("!Id")  # the length of the rest, and the moment of the limit


class WorkerUser(Protocol):
    """Whoever makes an attempt in a worker."""

    def on_frame(self, frame: bytes) -> None:
        """The result has come, or a piece of it: an envelope. Or the next bytes of a large one's body."""

    def on_large(self, large: Large) -> None:
        """A large result begins; nothing more is read until `resume`."""

    def on_exit(self, exit_: Exit) -> None:
        """The worker has ended."""

    def on_hung_up(self) -> None:
        """The channel was closed from the other side."""


class WorkerProcess(asyncio.Protocol):
    """A worker process. `user` is told what happens to it; one without a user is idle.

    `on_hung_up(worker)` is called when an idle worker closes its channel, or says something unasked.
    """

    def __init__(
        self,
        number: int,
        row: int,
        *,
        output: Output,
        response_bytes_max: int,
        held_bytes_max: int,
        on_hung_up: "Callable[[WorkerProcess], None]",
    ) -> None:
        self.number = number
        self.row = row
        self.code: Code | None = None  # a spare one serves nothing yet
        self.output = output
        self.guard: Guard | None = None
        self.user: WorkerUser | None = None
        self.hung_up = False
        self.stale = False  # its code is served no more: it makes no further attempt
        self._on_hung_up = on_hung_up
        self._frames = FrameReader(
            frame_bytes_max=response_bytes_max + HEADER_BYTES_MAX, held_bytes_max=held_bytes_max
        )
        self._transport: asyncio.Transport
        self._taken: asyncio.Future[None] | None = (
            None  # the worker has to read first, before it is sent more
        )

    @classmethod
    async def open(
        cls,
        number: int,
        row: int,
        *,
        response_bytes_max: int,
        held_bytes_max: int,
        on_hung_up: "Callable[[WorkerProcess], None]",
    ) -> tuple["WorkerProcess", tuple[int, int, int]]:
        """A worker to be, and its ends of channel, stdout and stderr: close them once they are sent.

        Raises `OSError`: this process may open no more files.
        """
        (ours, theirs), (output, output_end), (errors, errors_end) = _open_channel_and_pipes()
        worker = cls(
            number,
            row,
            output=Output(output, errors),
            response_bytes_max=response_bytes_max,
            held_bytes_max=held_bytes_max,
            on_hung_up=on_hung_up,
        )
        await asyncio.get_running_loop().create_unix_connection(lambda: worker, sock=ours)
        return worker, (theirs.detach(), output_end, errors_end)

    def equip(self, environment: Mapping[str, str]) -> None:
        """Give the process that becomes the worker its environment. First of all, and once."""
        text = json.dumps(environment).encode()
        self._transport.write(len(text).to_bytes(FRAME_HEADER_BYTES, "big") + text)

    def serve(self, code: Code, *, response_bytes_max: int) -> None:
        """Tell the worker what it serves; every later frame is an invocation."""
        self.code = code
        self.send(0.0, _served(code, response_bytes_max))

    def send(self, limit_at: float, data: bytes, *, rest_bytes: int = 0) -> None:
        """Give the worker an envelope, whose attempt has its limit at that moment of the boot clock.

        `rest_bytes`: how many more belong to it, for `send_rest`.
        """
        start = START.pack(START.size - FRAME_HEADER_BYTES + len(data) + rest_bytes, limit_at)
        self._transport.write(start + data)

    async def send_rest(self, data: bytes) -> None:
        """Give the worker further bytes of an envelope; returns when it may be given more."""
        if not self.hung_up:
            self._transport.write(data)
        if self._taken is not None:
            await self._taken

    def pause_writing(self) -> None:
        """The worker reads more slowly than it is sent."""
        self._taken = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """The worker has read, or will never again."""
        if self._taken is not None:
            if not self._taken.done():
                self._taken.set_result(None)
            self._taken = None

    def close(self) -> None:
        """Let go of channel and pipes."""
        self._transport.abort()
        self.output.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The channel is open."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class

    def pause(self) -> None:
        """Read no further: what the worker sends then waits in the worker."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Bytes of frames, usually one whole frame."""
        if self.hung_up:
            return
        try:
            for what in self._frames.feed(data):
                self._deliver(what)
        except EnvelopeError:  # user code has written to the channel
            self._hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker has closed its channel, or is gone."""
        del exc
        self._hang_up()
        self.resume_writing()

    def _deliver(self, what: bytes | Large) -> None:
        if self.user is None:
            self._hang_up()
        elif isinstance(what, Large):
            self.pause()
            self.user.on_large(what)
        else:
            self.user.on_frame(what)

    def _hang_up(self) -> None:
        if not self.hung_up:
            self.hung_up = True
            if self.user is None:
                self._on_hung_up(self)
            else:
                self.user.on_hung_up()


def _open_channel_and_pipes() -> tuple[tuple[socket.socket, socket.socket], tuple[int, int], tuple[int, int]]:
    """Both ends of the channel and of the two pipes: all of them, or none."""
    with ExitStack() as opened:
        ours, theirs = socket.socketpair()
        opened.callback(ours.close)
        opened.callback(theirs.close)
        ours.setblocking(False)  # noqa: FBT003 - it takes no keyword
        output = os.pipe()
        for end in output:
            opened.callback(os.close, end)
        errors = os.pipe()
        opened.pop_all()
    return (ours, theirs), output, errors


def _served(code: Code, response_bytes_max: int) -> bytes:
    """The first frame's envelope: what the worker serves, with the source of it."""
    header = {
        "function": code.function,
        "path": str(code.path),
        "folder": str(code.folder),
        "memory_mib": code.memory_mib,
        "response_bytes_max": response_bytes_max,
    }
    return pack(header, code.source)

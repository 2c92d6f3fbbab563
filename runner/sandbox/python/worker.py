"""The worker: serves one Python function, one attempt at a time, and is the only place where user code runs.

Standard library only. It reads a frame from its channel, makes event and context, runs the handler
and writes a frame back; the frames are described in `docs/architecture.md`. It judges nothing: what
a result means is the runner's business.
"""

import asyncio
import importlib.machinery
import importlib.util
import inspect
import json
import linecache
import os
import resource
import select
import struct
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, TextIO

import quarterhour

__all__ = ["main"]

READ_BYTES = 65536
MESSAGE_CHARACTERS_MAX = 8192
TRACE_LINES_MAX = 50
TRACE_LINE_CHARACTERS_MAX = 1024
HEADER_BYTES_MAX = 1024 * 1024  # as in the runner's envelopes
MIB = 1024 * 1024
THREAD_STACK_BYTES = 2 * MIB  # the usual 8 MiB would count against the worker's memory, used or not
MODULE_NAME = "_quarterhour_function"  # never the file's own name: two functions, or a library, may share it


class Source(importlib.machinery.SourceFileLoader):
    """Loads a file as it was when it was read, without a cache, which could be that of another version."""

    def __init__(self, name: str, path: str, source: bytes) -> None:
        super().__init__(name, path)
        self.source = source

    def get_data(self, path: str) -> bytes:
        """What stood in the file."""
        return self.source if path == self.path else super().get_data(path)

    def path_stats(self, path: str) -> dict[str, Any]:  # noqa: ARG002 - the loader's signature
        """Nothing that a cache could go by."""
        raise OSError


def load(name: str, path: str | Path, source: bytes | None = None) -> ModuleType:
    """Run a file, or `source` in its place, as the module `name`."""
    loader = None if source is None else Source(name, str(path), source)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None or spec.loader is None:
        message = f"{path} is no Python file."
        raise ImportError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pickle and dataclasses look it up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def sibling(name: str) -> ModuleType:
    """A module beside this file, which is in no package here."""
    return load(f"_quarterhour_{name}", Path(__file__).with_name(f"{name}.py"))


make_event = sibling("event").make_event
Context = sibling("context").Context
results = sibling("results")
InvalidResult = results.InvalidResult


class HandlerNotFound(Exception):  # noqa: N818 - shown to authors under this name
    """The module has neither a callable `handler` nor an `app`."""


Frame = tuple[dict[str, Any], bytes]


START = struct.Struct("!Id")  # the length of the rest, and the moment of the limit
# What `json.loads` comes to, for text that is known to be JSON.
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_dump = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class Worker:
    """One function's worker, from its first frame to the end of its channel."""

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.path = ""
        self.memory_mib = 0
        self.response_bytes_max = 0
        self.source = b""
        self.module: ModuleType | None = None
        self.loop: asyncio.Runner | None = None
        self.apps: Any = None
        self.asgi: Any = None
        self.arrived = select.poll()
        self.arrived.register(channel, select.POLLIN)

    def serve(self) -> None:
        """Answer frames until the runner closes the channel. The first one says what is served."""
        pid = os.getpid()
        first = self.read_first()
        if first is None:
            return
        self.prepare(*split(first))
        while (frame := self.read()) is not None:
            header, body = self.attempt(*frame)
            flush()
            if os.getpid() != pid:
                os._exit(0)  # a fork that the handler made has returned as well: it has no result to give
            if leftover_children():
                header["retire"] = True
            self.write(header, body)

    def prepare(self, served: dict[str, Any], source: bytes) -> None:
        """Get ready for the function: its path comes first, its memory is bounded."""
        self.path, self.source = served["path"], source
        self.memory_mib = served["memory_mib"]
        self.response_bytes_max = served["response_bytes_max"]
        sys.argv = [served["function"]]
        sys.path.insert(0, served["folder"])
        limit_memory(self.memory_mib)

    def attempt(self, limit_at: float, envelope: bytes) -> Frame:
        """Run the handler once; whatever it raises becomes a frame."""
        try:
            header, body = split(envelope)
            return self.run(limit_at, header, body if header["has_body"] else None)
        except BaseException as error:  # noqa: BLE001 - the edge of user code
            return raised_frame(error)

    def run(self, limit_at: float, header: dict[str, Any], body: bytes | None) -> Frame:
        """Call the handler with its event and context, or the application with the request."""
        if self.module is None:
            remember_lines(self.path, self.source)
            self.module = load(MODULE_NAME, self.path, self.source)
        handler = getattr(self.module, "handler", None)
        if not callable(handler):
            return self.run_app(header, body)
        context = Context(
            invocation_id=header["id"],
            function=header["function"],
            memory_mib=self.memory_mib,
            attempt=header["attempt"],
            limit_at=limit_at,
            errors=header["errors"],
            params=header.get("params", {}),
        )
        result = handler(make_event(header, body), context)
        if inspect.isawaitable(result):
            result = self.wait_for(awaited(result))
        if header["mode"] != "synchronous":
            return results.value_frame(result)  # type: ignore[no-any-return]
        if (pieces := results.streamed_body(result)) is not None:
            return self.stream(results.head_of(result), pieces)
        return results.response_frame(result, self.response_bytes_max)  # type: ignore[no-any-return]

    def run_app(self, header: dict[str, Any], body: bytes | None) -> Frame:
        """Have the module's `app` answer."""
        app = getattr(self.module, "app", None)
        if not callable(app):
            message = (
                f"{Path(self.path).name} has no function `handler(event, context)`, "
                "and no ASGI or WSGI application `app`."
            )
            raise HandlerNotFound(message)
        outgoing = self.outgoing(streams=header["mode"] == "synchronous")
        if self.apps is None:
            self.apps = sibling("apps")
            self.asgi = self.apps.Asgi(app) if self.apps.is_asgi(app) else None
        if self.asgi is not None:
            self.wait_for(self.asgi.call(header, body, outgoing))
        else:
            self.apps.call_wsgi(app, header, body, outgoing)
        return outgoing.frame()  # type: ignore[no-any-return]

    def stream(self, head: dict[str, Any], pieces: Any) -> Frame:
        """Send a response whose body comes bit by bit."""
        outgoing = self.outgoing(streams=True)
        outgoing.begin(head)
        if hasattr(pieces, "__anext__"):
            self.wait_for(send_all(pieces, outgoing))
        else:
            for piece in pieces:
                outgoing.send(results.piece_of(piece))
        return outgoing.frame()  # type: ignore[no-any-return]

    def outgoing(self, *, streams: bool) -> Any:
        """A response on its way."""
        return results.Outgoing(self.send, body_bytes_max=self.response_bytes_max, streams=streams)

    def wait_for(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What a coroutine comes to, in the worker's event loop, which goes on from attempt to attempt."""
        if self.loop is None:
            self.loop = asyncio.Runner()
        return self.loop.run(coroutine)

    def read(self) -> tuple[float, bytes] | None:
        """The next frame: the moment of the limit and the envelope; None at the end of the channel."""
        # A bare read on a Unix socket is woken once more when the runner takes the result before it.
        self.arrived.poll()
        data = self._receive(READ_BYTES)
        if len(data) < START.size:
            start = self._exactly(START.size - len(data)) if data else None
            if start is None:
                return None
            data += start
        length, limit_at = START.unpack_from(data)
        length += 4
        if len(data) == length:
            return limit_at, data[START.size :]
        rest = self._exactly(length - len(data))
        return None if rest is None else (limit_at, data[START.size :] + rest)

    def read_first(self) -> bytes | None:
        """The envelope of the first frame. The next one may follow it at once, so not a byte more is read."""
        start = self._exactly(START.size)
        if start is None:
            return None
        length, _ = START.unpack(start)
        return self._exactly(length + 4 - START.size)

    def _exactly(self, size: int) -> bytes | None:
        """So many bytes; None if the channel ends before."""
        parts: list[bytes] = []
        while size > 0:
            part = self._receive(min(size, READ_BYTES))
            if not part:
                return None
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _receive(self, most: int) -> bytes:
        try:
            return os.read(self.channel, most)
        except OSError:  # user code has closed it
            return b""

    def write(self, header: dict[str, Any], body: bytes) -> None:
        """Send the final frame."""
        try:
            self.send(header, body)
        except InvalidResult as error:
            self.send(*raised_frame(error))

    def send(self, header: dict[str, Any], body: bytes) -> None:
        """Send a frame. A channel that is gone ends the worker. Raises `InvalidResult`."""
        text = header_text(header)
        length = (4 + len(text) + len(body)).to_bytes(4, "big")
        data = memoryview(b"".join((length, len(text).to_bytes(4, "big"), text, body)))
        try:
            while data:
                data = data[os.write(self.channel, data) :]
        except OSError:
            os._exit(74)


def header_text(header: dict[str, Any]) -> bytes:
    """A frame's header as JSON that the runner can read: UTF-8, no NaN, no more than it takes."""
    try:
        text = _dump(header).encode()
        if len(text) <= HEADER_BYTES_MAX:
            return text
        why = f"they have {len(text)} bytes as JSON; {HEADER_BYTES_MAX} are allowed"
    except (TypeError, ValueError, RecursionError) as error:
        why = str(error)
    message = f"The status or the headers that the handler returned cannot be sent: {why}."
    raise InvalidResult(message)


async def awaited(result: Any) -> Any:
    """What an awaitable comes to: a handler may return any, not only a coroutine."""
    return await result


async def send_all(pieces: AsyncIterator[Any], outgoing: Any) -> None:
    """Send what an asynchronous generator yields."""
    async for piece in pieces:
        outgoing.send(results.piece_of(piece))


def split(data: bytes) -> Frame:
    """The header and the body of an envelope."""
    end = 4 + int.from_bytes(data[:4], "big")
    return _scan(data[4:end].decode(), 0)[0], data[end:]


def raised_frame(error: BaseException) -> Frame:
    """The frame of an exception."""
    if isinstance(error, MemoryError):
        traceback.clear_frames(error.__traceback__)  # they hold what used the memory up
    retry_after_s = error.delay_s if isinstance(error, quarterhour.RetryAfter) else None
    # The work was done and would be done again; DoNotRetry says so itself.
    final = isinstance(error, quarterhour.DoNotRetry | InvalidResult)
    header = {
        "kind": "raised",
        "error": {"type": type(error).__name__, "message": describe(error), "trace": trace_of(error)},
        "retry": not final,
        "retry_after_s": retry_after_s,
        "out_of_memory": isinstance(error, MemoryError),
        # What is left of the heap after a MemoryError, or of a module that failed to load, is no base.
        "retire": isinstance(error, MemoryError | RecursionError | ImportError | SystemExit),
    }
    return header, b""


def describe(error: BaseException) -> str:
    """The error's message, whatever its `__str__` does."""
    if isinstance(error, SystemExit):
        return whole(f"The handler called sys.exit({error.code!r})."[:MESSAGE_CHARACTERS_MAX])
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - user code again
        text = "(its message cannot be shown)"
    return whole(text[:MESSAGE_CHARACTERS_MAX])


def whole(text: str) -> str:
    """The text without halves of characters, which UTF-8 has no bytes for."""
    return text.encode("utf-8", "replace").decode()


def trace_of(error: BaseException) -> list[str]:
    """The last lines of the traceback, from the function's own code on."""
    try:
        lines = traceback.format_exception(type(error), error, own(error.__traceback__))
    except BaseException:  # noqa: BLE001 - a message or a cause that cannot be shown
        return []
    last = "".join(lines).splitlines()[-TRACE_LINES_MAX:]
    return [whole(line[:TRACE_LINE_CHARACTERS_MAX]) for line in last]


def remember_lines(path: str, source: bytes) -> None:
    """Let tracebacks quote what runs, not what stands in the file by now."""
    text = source.decode("utf-8", "replace")
    linecache.cache[path] = (len(source), None, text.splitlines(keepends=True), path)


def own(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of this module, and of what it calls to import or to await."""
    first, at = trace, trace
    while at is not None:
        # An event loop lies between this module's frames, where a handler is awaited.
        if at.tb_frame.f_code.co_filename == __file__:
            first = at.tb_next
        at = at.tb_next
    while first is not None and first.tb_frame.f_code.co_filename.startswith("<frozen importlib"):
        first = first.tb_next
    return first


def text_stream(descriptor: int) -> TextIO:
    """A stream that writes line by line, so that what is printed can be followed."""
    return os.fdopen(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def flush() -> None:
    """Push out what was printed, so that it is on its way before the result is."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            continue


def leftover_children() -> bool:
    """Whether the handler left processes behind that still run; those that have ended are reaped."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            continue
    except ChildProcessError:
        return False
    return True


def limit_memory(memory_mib: int) -> None:
    """Bound the memory; everything else that is bounded was before this process became a worker."""
    if sys.platform == "linux":  # elsewhere it is not enforced, or refuses the running interpreter
        resource.setrlimit(resource.RLIMIT_DATA, (memory_mib * MIB, memory_mib * MIB))


def main(*, channel: int) -> None:
    """Serve the function that the first frame on the descriptor `channel` names. Never returns."""
    time.tzset()
    sys.stdout, sys.stderr = text_stream(1), text_stream(2)
    threading.stack_size(THREAD_STACK_BYTES)
    Worker(channel).serve()
    flush()
    os._exit(0)

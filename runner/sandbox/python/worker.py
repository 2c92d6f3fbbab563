"""The worker: serves one Python function, one attempt at a time, and is the only place where user code runs.

Standard library only. It reads a frame from its channel, makes event and context, runs the handler
and writes a frame back; the frames are described in `docs/architecture.md`. It judges nothing: what
a result means is the runner's business.
"""

import asyncio
import base64
import binascii
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
VALUE_BYTES_MAX = 65536
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


make_event = load("_quarterhour_event", Path(__file__).with_name("event.py")).make_event
Context = load("_quarterhour_context", Path(__file__).with_name("context.py")).Context


class HandlerNotFound(Exception):  # noqa: N818 - shown to authors under this name
    """The module has no callable `handler`."""


class ResponseTooLarge(Exception):  # noqa: N818 - shown to authors under this name
    """The body of the response is larger than the operator allows."""


class InvalidResult(Exception):  # noqa: N818 - shown to authors under this name
    """What the handler returned cannot be sent or kept."""


Frame = tuple[dict[str, Any], bytes]

START = struct.Struct("!Id")  # the length of the rest, and the moment of the limit
# What `json.loads` comes to, for text that is known to be JSON.
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_dump = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class Worker:
    """One function's worker, from its first frame to the end of its channel."""

    def __init__(self, channel: int, path: str, memory_mib: int, response_bytes_max: int) -> None:
        self.channel = channel
        self.path = path
        self.memory_mib = memory_mib
        self.response_bytes_max = response_bytes_max
        self.source = b""
        self.module: ModuleType | None = None
        self.loop: asyncio.Runner | None = None
        self.arrived = select.poll()
        self.arrived.register(channel, select.POLLIN)

    def serve(self) -> None:
        """Answer frames until the runner closes the channel. The first one is the source."""
        pid = os.getpid()
        source = self.read_source()
        if source is None:
            return
        self.source = source
        while (frame := self.read()) is not None:
            header, body = self.attempt(*frame)
            flush()
            if os.getpid() != pid:
                os._exit(0)  # a fork that the handler made has returned as well: it has no result to give
            if leftover_children():
                header["retire"] = True
            self.write(header, body)

    def attempt(self, limit_at: float, envelope: bytes) -> Frame:
        """Run the handler once; whatever it raises becomes a frame."""
        try:
            header, body = split(envelope)
            result = self.run(limit_at, header, body if header["has_body"] else None)
            if header["mode"] == "synchronous":
                return response_frame(result, self.response_bytes_max)
            return value_frame(result)
        except BaseException as error:  # noqa: BLE001 - the edge of user code
            return raised_frame(error)

    def run(self, limit_at: float, header: dict[str, Any], body: bytes | None) -> Any:
        """Call the handler with its event and context."""
        if self.module is None:
            remember_lines(self.path, self.source)
            self.module = load(MODULE_NAME, self.path, self.source)
        handler = getattr(self.module, "handler", None)
        if not callable(handler):
            message = f"{Path(self.path).name} has no function `handler(event, context)`."
            raise HandlerNotFound(message)
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
            if self.loop is None:
                self.loop = asyncio.Runner()
            result = self.loop.run(awaited(result))
        return result

    def read(self) -> tuple[float, bytes] | None:
        """The next frame: the moment of the limit and the envelope; None at the end of the channel."""
        # A bare read on a Unix socket is woken once more when the runner takes the result before it.
        self.arrived.poll()
        data = self._receive(READ_BYTES)
        if not data:
            return None
        length, limit_at = START.unpack_from(data)
        length += 4
        if len(data) == length:
            return limit_at, data[START.size :]
        rest = self._exactly(length - len(data))
        return None if rest is None else (limit_at, data[START.size :] + rest)

    def read_source(self) -> bytes | None:
        """What the first frame holds. The next one may follow it at once, so not a byte more is read."""
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
        """Send a frame. A channel that is gone ends the worker."""
        try:
            text = header_text(header)
        except (TypeError, ValueError, RecursionError) as error:
            message = f"The status or the headers that the handler returned cannot be sent: {error}."
            header, body = raised_frame(InvalidResult(message))
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
    text = _dump(header).encode()
    if len(text) > HEADER_BYTES_MAX:
        message = f"they have {len(text)} bytes as JSON; {HEADER_BYTES_MAX} are allowed"
        raise ValueError(message)
    return text


async def awaited(result: Any) -> Any:
    """What an awaitable comes to: a handler may return any, not only a coroutine."""
    return await result


def split(data: bytes) -> Frame:
    """The header and the body of an envelope."""
    end = 4 + int.from_bytes(data[:4], "big")
    return _scan(data[4:end].decode(), 0)[0], data[end:]


def response_frame(result: Any, body_bytes_max: int) -> Frame:
    """The frame of a synchronous result."""
    if not isinstance(result, dict):
        return {"kind": "returned", "shape": "nothing" if result is None else "other"}, b""
    kind, body = response_body(result)
    if len(body) > body_bytes_max:
        message = f"The response's body has {len(body)} bytes; {body_bytes_max} are allowed."
        raise ResponseTooLarge(message)
    header = {
        "kind": "returned",
        "shape": "object",
        "statusCode": result.get("statusCode"),
        "headers": result.get("headers"),
        "multiValueHeaders": result.get("multiValueHeaders"),
        "body": kind,
    }
    return header, body


def response_body(result: dict[Any, Any]) -> tuple[str, bytes]:
    """The body's kind and its bytes."""
    body = result.get("body")
    if body is None or body == "":
        return "none", b""
    if not isinstance(body, str):
        return "invalid", b""
    if not result.get("isBase64Encoded"):
        return "text", body.encode("utf-8", "surrogatepass")
    try:
        return "base64", base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return "invalid", b""


def value_frame(result: Any) -> Frame:
    """The frame of a background result: the value as JSON, and the status that it may claim."""
    if result is None:
        return {"kind": "returned", "shape": "nothing"}, b""
    try:
        value = _dump(result).encode("utf-8", "replace")
    except (TypeError, ValueError, RecursionError) as error:
        message = f"What the handler returned is not JSON: {error}."
        raise InvalidResult(message) from None
    header: dict[str, Any] = {"kind": "returned", "shape": "other"}
    if isinstance(result, dict) and "statusCode" in result:
        header |= {"shape": "object", "statusCode": result["statusCode"]}
    return header, value[:VALUE_BYTES_MAX]


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


def limit_resources(memory_mib: int) -> None:
    """Bound the worker's memory; no core files, which could fill a disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere it is not enforced, or refuses the running interpreter
        resource.setrlimit(resource.RLIMIT_DATA, (memory_mib * MIB, memory_mib * MIB))


def main(
    *, channel: int, function: str, path: str, folder: str, memory_mib: int, response_bytes_max: int
) -> None:
    """Serve `function`, whose handler is in `path`, on the descriptor `channel`. Never returns."""
    time.tzset()
    sys.argv = [function]
    sys.path.insert(0, folder)
    sys.stdout, sys.stderr = text_stream(1), text_stream(2)
    limit_resources(memory_mib)
    threading.stack_size(THREAD_STACK_BYTES)
    Worker(channel, path, memory_mib, response_bytes_max).serve()
    flush()
    os._exit(0)

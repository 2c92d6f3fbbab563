"""Node.js for tests, and a worker of its that is spoken to in frames, without guard and pool.

with NodeWorker(tmp_path, "exports.handler = async () => ({ statusCode: 200 })") as worker:
    header, body = worker.call()
"""

import json
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from quarterhour.clock import boot_s
from quarterhour.invocation import pack, unpack
from runner.sandbox.node.find import find_node
from runner.sandbox.node.runtime import RUNTIME
from runner.sandbox.runtime import Missing

__all__ = ["Answer", "NodeWorker", "node"]

READ_S = 20.0
# Descriptor 3 has to be the channel, and only a process of its own can see to that.
AS_DESCRIPTOR_3 = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execv(sys.argv[2], sys.argv[2:])"


def node() -> Path:
    """Node's program. Without it the test is skipped, or fails where nothing may be missing."""
    try:
        return find_node()
    except Missing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The last frame of an attempt, and what was streamed before it."""

    header: dict[str, Any]
    body: bytes
    start: dict[str, Any] | None
    chunks: tuple[bytes, ...]

    @property
    def text(self) -> str:
        """The body of a response."""
        assert self.header["kind"] == "returned", self.header
        return self.body.decode()

    @property
    def value(self) -> Any:
        """The body as JSON."""
        return json.loads(self.text)

    @property
    def error(self) -> dict[str, Any]:
        """What was thrown."""
        assert self.header["kind"] == "raised", self.header
        error: dict[str, Any] = self.header["error"]
        return error


class NodeWorker:
    """One worker that serves `source` as the file `name` in `folder`, which is written there as well."""

    def __init__(
        self,
        folder: Path,
        source: str,
        *,
        name: str = "hello.js",
        environment: Mapping[str, str] | None = None,
        response_bytes_max: int = 1024 * 1024,
        memory_mib: int = 512,
    ) -> None:
        node()
        self.path = folder / name
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the worker is left
        text = textwrap.dedent(source)
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(text, encoding="utf-8")
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(READ_S)
        self._file = self.channel.makefile("rb")
        command = RUNTIME.launch(installed=None, memory_mib=memory_mib).command
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", AS_DESCRIPTOR_3, str(theirs.fileno()), *command],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self.output,
                stderr=subprocess.STDOUT,
                env={"PATH": os.environ["PATH"], "TMPDIR": str(folder), **(environment or {})},
            )
        header = {
            "function": self.path.stem,
            "path": str(self.path),
            "folder": str(folder),
            "memory_mib": memory_mib,
            "response_bytes_max": response_bytes_max,
        }
        self._send(0.0, header, text.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self.channel.close()
        try:
            self.process.wait(READ_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.output.close()

    def call(self, body: bytes | None = None, **more: Any) -> Answer:
        """Make an attempt; `more` are keys of its header, and `limit_s`."""
        self.start(body, **more)
        return self.answer()

    def start(self, body: bytes | None = None, *, limit_s: float = 60.0, **more: Any) -> None:
        """Send the frame of an attempt."""
        header = {
            "v": 1,
            "id": "0190a",
            "function": self.path.stem,
            "mode": "synchronous",
            "attempt": 1,
            "accepted_at": 0,
            "due_at": 0,
            "method": "GET" if body is None else "POST",
            "path": f"/.netlify/functions/{self.path.stem}",
            "query": "",
            "headers": [["host", "localhost:8888"]],
            "client": "127.0.0.1",
            "scheme": "http",
            "has_body": body is not None,
            "trace": None,
            "errors": [],
            **more,
        }
        self._send(boot_s() + limit_s, header, body or b"")

    def answer(self) -> Answer:
        """Read the frames of an attempt, up to the last one."""
        start, chunks = None, []
        for header, body in self.frames():
            match header["kind"]:
                case "streaming":
                    start = header
                case "chunk":
                    chunks.append(body)
                case _:
                    return Answer(header=header, body=body, start=start, chunks=tuple(chunks))
        message = f"The worker ended without an answer, and printed: {self.printed()}"
        raise AssertionError(message)

    def frames(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        """The frames that come, until the channel ends."""
        while start := self._file.read(4):
            yield unpack(self._file.read(int.from_bytes(start, "big")))

    def is_silent(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        return not select.select([self.channel], [], [], seconds)[0]

    def printed(self) -> str:
        """What the worker has printed so far, on either stream."""
        return os.pread(self.output.fileno(), 1 << 20, 0).decode()

    def _send(self, limit_at: float, header: dict[str, Any], body: bytes) -> None:
        envelope = pack(header, body)
        moment = struct.pack("!d", limit_at)
        self.channel.sendall((len(moment) + len(envelope)).to_bytes(4, "big") + moment + envelope)

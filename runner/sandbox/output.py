"""What a worker prints: its two pipes, cut into lines, with the last of them kept as evidence."""

import asyncio
import os
import select
from collections import deque
from collections.abc import Callable

from quarterhour.record import LOGS_BYTES_MAX

__all__ = ["Output"]

READ_BYTES = 16384  # so much at a time: a flood must leave the runner's loop time for others
DRAIN_READS_MAX = 16  # a pipe holds 64 KiB
LINE_BYTES_MAX = 16384
LINES_SHOWN_MAX = 10_000  # of one attempt; the tail is kept all the same
SHOWN_BYTES_MAX = 4 * 1024 * 1024
TAIL_BYTES_MAX = LOGS_BYTES_MAX - 64  # there is room for a line that says what is missing

OnLine = Callable[[str, str], None]


class Output:
    """Reads stdout and stderr of a worker. Lines go to `on_line(stream, text)` while an attempt runs."""

    def __init__(self, output: int, errors: int) -> None:
        self._pipes = {output: "stdout", errors: "stderr"}
        self._rests: dict[int, bytes] = {output: b"", errors: b""}
        self._on_line: OnLine | None = None
        self._shown = 0
        self._shown_bytes = 0
        self._tail: deque[str] = deque()
        self._tail_bytes = 0
        self._not_kept = 0
        self._loop = asyncio.get_running_loop()
        self._poll = select.poll()
        for pipe in self._pipes:
            os.set_blocking(pipe, False)
            self._poll.register(pipe, select.POLLIN)
            self._loop.add_reader(pipe, self._read, pipe)

    def begin(self, on_line: OnLine) -> None:
        """An attempt starts: what comes from now on is its own; what came while nothing ran is nobody's."""
        self._on_line = on_line
        self._shown = self._shown_bytes = 0
        if self._tail or any(self._rests.values()):
            self._forget()
            self._rests = dict.fromkeys(self._pipes, b"")

    def end(self) -> str:
        """The attempt has ended: read what is left, and return its last lines."""
        self._drain()
        self._on_line = None
        if not self._tail:
            return ""
        missing = f"({self._not_kept} earlier lines are not kept)\n" if self._not_kept else ""
        text = missing + "".join(self._tail)
        self._forget()
        return text

    def close(self) -> None:
        """Let go of the pipes. What they hold is read first: the last lines of a crash say most."""
        self._drain()
        for pipe in self._pipes:
            self._loop.remove_reader(pipe)
            self._poll.unregister(pipe)
            os.close(pipe)
        self._pipes = {}
        self._rests = {}

    def _drain(self) -> None:
        for pipe, _ in self._poll.poll(0):  # most attempts print nothing: one call tells for both
            for _ in range(DRAIN_READS_MAX):
                if not self._read(pipe):
                    break
        for pipe, rest in self._rests.items():
            if rest:
                self._rests[pipe] = b""
                self._line(self._pipes[pipe], rest)

    def _forget(self) -> None:
        self._tail.clear()
        self._tail_bytes = 0
        self._not_kept = 0

    def _read(self, pipe: int) -> bool:
        """Read once; whether there may be more."""
        try:
            data = os.read(pipe, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(pipe)
            return False
        *lines, rest = (self._rests[pipe] + data).split(b"\n")
        stream = self._pipes[pipe]
        for line in lines:
            self._line(stream, line)
        while len(rest) > LINE_BYTES_MAX:
            end = _end_of_piece(rest)
            self._line(stream, rest[:end])
            rest = rest[end:]
        self._rests[pipe] = rest
        return True

    def _line(self, stream: str, line: bytes) -> None:
        while len(line) > LINE_BYTES_MAX:
            end = _end_of_piece(line)
            self._piece(stream, line[:end])
            line = line[end:]
        self._piece(stream, line)

    def _piece(self, stream: str, piece: bytes) -> None:
        text = piece.decode("utf-8", "replace")
        self._keep(f"{text}\n")
        self._show(stream, text)

    def _keep(self, text: str) -> None:
        self._tail.append(text)
        self._tail_bytes += _size_bytes(text)
        while self._tail_bytes > TAIL_BYTES_MAX:
            self._tail_bytes -= _size_bytes(self._tail.popleft())
            self._not_kept += 1

    def _show(self, stream: str, text: str) -> None:
        if self._on_line is None or self._is_full:
            return
        self._shown += 1
        self._shown_bytes += _size_bytes(text)
        self._on_line(stream, text)
        if self._is_full:
            self._on_line(stream, f"(after {self._shown} lines: the rest is not shown)")

    @property
    def _is_full(self) -> bool:
        return self._shown >= LINES_SHOWN_MAX or self._shown_bytes >= SHOWN_BYTES_MAX


def _end_of_piece(line: bytes) -> int:
    """Where to cut a line that is too long: not within a character of UTF-8, which has up to 4 bytes."""
    end = LINE_BYTES_MAX
    while end > LINE_BYTES_MAX - 4 and line[end] & 0xC0 == 0x80:
        end -= 1
    return end


def _size_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())

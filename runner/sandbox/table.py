"""The table: for each worker, when its attempt reaches its limit and when its lease ends.

It is memory shared with the guard, so that a limit and a lease are kept without a message for each
attempt, and even if the runner is stopped between two instructions. A row is two moments of the
boot clock, in seconds; 0 means none. `guarding/zygote.py` reads it with the same layout.
"""

import mmap
import os
import tempfile

__all__ = ["ROW_BYTES", "Table"]

ROW_BYTES = 16  # two 8-byte floats


class Table:
    """`rows` rows; `fd` is what guards inherit."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        size = rows * ROW_BYTES
        self.fd = _shared_memory(size)
        self._map = mmap.mmap(self.fd, size)
        self._moments = memoryview(self._map).cast("d")
        self._free = list(range(rows))

    def take(self) -> int:
        """A free row. Raises `IndexError` if there is none: the pool asks for no more than there are."""
        return self._free.pop()

    def give_back(self, row: int) -> None:
        """The row's worker is gone."""
        self.set(row, limit_at=None, leased_until=None)
        self._free.append(row)

    def set(self, row: int, *, limit_at: float | None, leased_until: float | None) -> None:
        """The moments of the attempt in the row's worker."""
        self._moments[2 * row + 1] = leased_until or 0.0
        self._moments[2 * row] = limit_at or 0.0

    def close(self) -> None:
        """Give the memory back."""
        self._moments.release()
        self._map.close()
        os.close(self.fd)


def _shared_memory(size: int) -> int:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("quarterhour-table")
    else:
        fd, path = tempfile.mkstemp(prefix="quarterhour-table-")
        os.unlink(path)  # noqa: PTH108 - a descriptor is all that is wanted
    os.ftruncate(fd, size)
    return fd

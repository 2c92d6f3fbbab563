"""A gateway or a runner whose wall clock can be put wrong, while the machine's own stays right.

    python -m tests.faults.shifted OFFSET_FILE gateway|runner …

The file holds one IEEE double: the seconds by which the process believes it to be later.
"""

import mmap
import runpy
import sys
import time
from pathlib import Path

__all__ = ["write_offset"]


def write_offset(path: Path, offset_s: float) -> None:
    """Put the clock of whoever was started with this file wrong by so much, at once."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.write(memoryview(bytearray(8)) if not offset_s else _double(offset_s))


def _double(value: float) -> bytes:
    data = bytearray(8)
    memoryview(data).cast("d")[0] = value
    return bytes(data)


def main() -> None:
    path, program = sys.argv[1:3]
    with Path(path).open("rb") as file:
        offset = memoryview(mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)).cast("d")
    real = time.time
    time.time = lambda: real() + offset[0]
    sys.argv = [f"quarterhour {program}", *sys.argv[3:]]
    runpy.run_module(program, run_name="__main__")


if __name__ == "__main__":
    main()

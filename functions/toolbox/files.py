"""Where a function leaves its files.

A kind of file has its folder, .quarterhour/reports/ for one, and a variable for another folder,
REPORTS_DIR. With runners on several machines that is a folder which all of them see.
"""

import os
from pathlib import Path

__all__ = ["place", "write"]


def place(kind: str, name: str) -> Path:
    """The path for a file. Call it by the invocation's id, and every attempt writes the same file."""
    folder = Path(os.environ.get(f"{kind.upper()}_DIR") or f".quarterhour/{kind}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def write(path: Path, content: bytes) -> None:
    """Write a file so that it is never seen half written, whatever happens meanwhile."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)

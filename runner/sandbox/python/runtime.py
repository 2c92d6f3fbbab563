"""Python as a runtime: workers are forked from the guard of their interpreter, which is their zygote."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.sandbox.python.config import read_config
from runner.sandbox.python.install import install
from runner.sandbox.runtime import Launch

__all__ = ["RUNTIME"]


class _Python:
    """See `runner.sandbox.runtime.Runtime`."""

    name = "python"
    suffixes = (".py",)
    listing = "requirements.txt"

    def read_config(self, source: bytes) -> Mapping[Any, Any] | None:
        """The module's literal `config = {...}`."""
        return read_config(source)

    def install(self, listing: Path, cache: Path, *, python: Path) -> Path | None:
        """A virtual environment, whose interpreter then is the functions'."""
        return install(listing, cache, python=python)

    def launch(self, *, installed: Path | None, memory_mib: int) -> Launch:
        """A fork; the worker limits its memory itself."""
        del memory_mib
        return Launch(python=installed / "bin" / "python" if installed is not None else None)


RUNTIME = _Python()

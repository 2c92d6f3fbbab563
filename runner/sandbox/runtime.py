"""The runtime port: what a language has to say for itself, and how its workers are started.

A runtime is a folder beside this file with a module `runtime` that has a `RUNTIME`; nothing else in
the project names it. `docs/runtimes.md` says how to write one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

__all__ = ["ConfigError", "InstallError", "Launch", "Missing", "NotValid", "Runtime"]


class NotValid(ValueError):  # noqa: N818 - a state of affairs
    """The source is not valid; the message is the end of a sentence that begins with the file."""


class ConfigError(ValueError):
    """`config` cannot be read without running the file; the message is the end of such a sentence too."""


class InstallError(Exception):
    """Dependencies could not be installed; the message ends with the installer's own words."""


class Missing(Exception):  # noqa: N818 - a state of affairs
    """The machine lacks what the runtime needs; the message is the sentence that says how to get it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How the workers of a function are started.

    `python` is the interpreter of the guard that keeps them (None: the sandbox's own); `command` is the
    program that becomes the worker, with its arguments; without one the guard forks it from itself.
    """

    python: Path | None = None
    command: tuple[str, ...] = ()


class Runtime(Protocol):
    """One language."""

    name: str
    """What manifests and `/v1/functions` call it."""
    suffixes: tuple[str, ...]
    """Of the files that are its functions, in the order of precedence."""
    listing: str
    """The file that lists a function's dependencies, such as `requirements.txt`."""

    def read_config(self, source: bytes) -> Mapping[Any, Any] | None:
        """What the source says in its `config`, with the keys of a manifest, None if it says nothing.

        The source is not run. Raises `NotValid`, `ConfigError`.
        """
        ...

    def install(self, listing: Path, cache: Path, *, python: Path) -> Path | None:
        """Install what `listing` names, unless that was done before, and return where it is.

        `cache` is a folder for what is installed, which other processes use at the same time; `python` is
        the interpreter of functions that list nothing. None: it is found where it is without being told.
        Blocks for as long as it takes. Raises `InstallError`.
        """
        ...

    def launch(self, *, installed: Path | None, memory_mib: int) -> Launch:
        """How to start a worker. `installed` is what `install` returned. Raises `Missing`."""
        ...

"""The catalog: the functions of a folder, each with its manifest and, if it can run, its code.

It reads files and never runs one. A function that is wrong in itself is listed with its error; only
what leaves the whole folder in doubt (no folder, no valid TOML, one name in two languages) raises.
"""

import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quarterhour.function import Manifest
from quarterhour.project_file import find_project_file, read_project_file
from runner.dependencies import Installed, no_dependencies
from runner.manifest import Limits, Reading, Said, read_manifest
from runner.project_tables import Project
from runner.sandbox.job import Code
from runner.sandbox.runtime import ConfigError, Launch, Missing, NotValid
from runner.sandbox.runtimes import RUNTIMES
from runner.scan import Found, scan

__all__ = ["SOURCE_BYTES_MAX", "Catalog", "Entry", "load_catalog"]

SOURCE_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A function. `code` is None if it cannot run; `manifest.error` then says why.

    `installing`: it cannot run yet, as its dependencies are still being installed.
    """

    manifest: Manifest
    code: Code | None
    installing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """The functions of a folder by name, and sentences about what is not as its author may think."""

    entries: Mapping[str, Entry]
    warnings: tuple[str, ...]


def load_catalog(
    folder: Path,
    *,
    working_directory: Path,
    synchronous_limit_s: float,
    background_limit_s: float,
    dependencies: Callable[[Found], Installed] = no_dependencies,
    generation: int = 0,
) -> Catalog:
    """The functions in `folder`, with what the project's file says of them. Raises `SettingsError`.

    The limits are the operator's, in seconds for one attempt; a function can only lower its own.
    `dependencies` says what is installed for a function. `generation` is handed on to each `Code`.
    """
    folder = folder.absolute()
    limits = Limits(synchronous_s=synchronous_limit_s, background_s=background_limit_s)
    scanned = scan(folder)
    path = find_project_file(working_directory, folder)
    file = read_project_file(path) if path else None
    project = Project(file, folder=folder, working_directory=working_directory)
    entries, warnings = {}, [*scanned.warnings, *project.warnings(scanned.found)]
    for found in scanned.found:
        said, lines = project.said_of(found)
        entry, more = _load(found, said, dependencies(found), limits, generation)
        entries[found.name] = entry
        warnings += [*lines, *more]
    return Catalog(entries=entries, warnings=tuple(warnings))


def _load(
    found: Found, said: Sequence[Said], installed: Installed, limits: Limits, generation: int
) -> tuple[Entry, tuple[str, ...]]:
    runtime = RUNTIMES[found.runtime]
    try:
        source = _read(found.path)
        config = runtime.read_config(source)
    except _UnreadableError as error:
        return _unable(found, said, limits, f"{found.place} {error}.")
    except (NotValid, ConfigError) as error:
        return _unable(found, said, limits, f"{found.place}{error}")
    if config is not None:
        said = [Said(place=f"{found.place}: config", values=config, in_source=True), *said]
    reading = read_manifest(found.name, found.runtime, said, limits, error=installed.error)
    if reading.manifest.error:
        entry = Entry(manifest=reading.manifest, code=None, installing=installed.installing)
        return entry, reading.warnings
    try:
        launch = runtime.launch(installed=installed.path, memory_mib=reading.manifest.memory_mib)
    except Missing as error:
        return _unable(found, said, limits, f"{found.place}: {error}")
    code = _code(found, reading, source, launch, generation + installed.generation)
    return Entry(manifest=reading.manifest, code=code), reading.warnings


def _unable(found: Found, said: Sequence[Said], limits: Limits, error: str) -> tuple[Entry, tuple[str, ...]]:
    reading = read_manifest(found.name, found.runtime, said, limits, error=error)
    return Entry(manifest=reading.manifest, code=None), reading.warnings


def _code(found: Found, reading: Reading, source: bytes, launch: Launch, generation: int) -> Code:
    return Code(
        function=found.name,
        path=found.path,
        folder=found.path.parent,
        source=source,
        launch=launch,
        generation=generation,
        environment=reading.environment,
        memory_mib=reading.manifest.memory_mib,
    )


class _UnreadableError(Exception):
    """The file of a function cannot be read; the message is the end of a sentence."""


def _read(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would wait for its other end
            message = "is no regular file"
            raise _UnreadableError(message)
        with path.open("rb") as file:
            source = file.read(SOURCE_BYTES_MAX + 1)
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise _UnreadableError(message) from None
    if len(source) > SOURCE_BYTES_MAX:
        message = f"is larger than {SOURCE_BYTES_MAX} bytes, the most that a function's file may have"
        raise _UnreadableError(message)
    return source

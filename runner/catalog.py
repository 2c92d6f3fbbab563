"""The catalog: the functions of a folder, each with its manifest and, if it can run, its code.

It reads files and never runs one. A function that is wrong in itself is listed with its error; only
what leaves the whole folder in doubt (no folder, no valid TOML, one name in two languages) raises.
"""

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarterhour.function import Manifest
from quarterhour.project_file import ProjectFile, find_project_file, read_project_file
from runner.manifest import KEYS, Limits, Reading, Said, read_manifest
from runner.sandbox.job import Code
from runner.sandbox.runtime import ConfigError, Launch, Missing, NotValid
from runner.sandbox.runtimes import RUNTIMES
from runner.scan import Found, scan

__all__ = ["SOURCE_BYTES_MAX", "Catalog", "Entry", "load_catalog"]

SOURCE_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A function. `code` is None if it cannot run; `manifest.error` then says why."""

    manifest: Manifest
    code: Code | None


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
    generation: int = 0,
) -> Catalog:
    """The functions in `folder`, with what the project's file says of them. Raises `SettingsError`.

    The limits are the operator's, in seconds for one attempt; a function can only lower its own.
    `generation` is handed on to each function's `Code`.
    """
    folder = folder.absolute()
    limits = Limits(synchronous_s=synchronous_limit_s, background_s=background_limit_s)
    scanned = scan(folder)
    path = find_project_file(working_directory, folder)
    project = read_project_file(path) if path else None
    entries, warnings = {}, [*scanned.warnings, *_project_warnings(project, scanned.found)]
    for found in scanned.found:
        entry, more = _load(found, project, limits, generation)
        entries[found.name] = entry
        warnings += more
    return Catalog(entries=entries, warnings=tuple(warnings))


def _load(
    found: Found, project: ProjectFile | None, limits: Limits, generation: int
) -> tuple[Entry, tuple[str, ...]]:
    said = _said_in_project(found, project)
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
    reading = read_manifest(found.name, found.runtime, said, limits)
    if reading.manifest.error:
        return Entry(manifest=reading.manifest, code=None), reading.warnings
    try:
        launch = runtime.launch(installed=None, memory_mib=reading.manifest.memory_mib)
    except Missing as error:
        return _unable(found, said, limits, f"{found.place}: {error}")
    return Entry(
        manifest=reading.manifest, code=_code(found, reading, source, launch, generation)
    ), reading.warnings


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


def _said_in_project(found: Found, project: ProjectFile | None) -> list[Said]:
    """What the project's file says in `[functions."name"]`."""
    table = project.table("functions").get(found.name) if project else None
    if project is None or not isinstance(table, dict):
        return []
    values = {key: value for key, value in table.items() if key not in _NETLIFY_KEYS}
    return [Said(place=_place(project, found.name), values=values, in_source=False)]


def _place(project: ProjectFile, name: str) -> str:
    return f'{project.path.name}: [functions."{name}"]'


# What Netlify's own builds read in these tables; it has no meaning here.
_NETLIFY_KEYS = frozenset(
    {"deno_import_map", "external_node_modules", "ignored_node_modules", "included_files", "node_bundler"}
)


def _project_warnings(project: ProjectFile | None, found: Sequence[Found]) -> list[str]:
    if project is None:
        return []
    names = {one.name for one in found}
    return [
        sentence
        for key, value in project.table("functions").items()
        if (sentence := _project_warning(project, key, value, names))
    ]


def _project_warning(project: ProjectFile, key: str, value: Any, names: set[str]) -> str | None:
    if isinstance(value, dict):
        if key in names:
            return None
        return f"{_place(project, key)} says something of a function that is not in the folder."
    if key in names or key in KEYS:
        return (
            f"{project.path.name}: [functions] {key} says nothing about a function; "
            f'what does is in tables such as [functions."hello"].'
        )
    return None

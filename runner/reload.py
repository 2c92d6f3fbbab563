"""Reload: what is saved in the functions folder runs from the next invocation on.

`changes` tells that something was saved, `Reloader` reads the folder anew and says what is different.
What looks worse than before (a function gone, or broken) may be a save half done: editors replace
files in several steps. So it is looked at twice, and until then the functions stay what they were.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from watchfiles import Change, DefaultFilter, awatch

from quarterhour.errors import SettingsError
from quarterhour.function import Manifest
from quarterhour.processes import background
from quarterhour.project_file import NAMES
from runner.catalog import Catalog, Entry
from runner.dependencies import concerns
from runner.environment import DOTENV
from runner.sandbox.runtimes import SUFFIXES

__all__ = ["Difference", "Reloader", "changes", "difference"]

GATHER_MS = 400  # saves that follow each other are one change, but no longer than this
QUIET_MS = 50
LOOK_MS = 2000  # how often to see whether the folder itself has been replaced
LOOK_AT_FILES_S = 0.3
LOOK_TWICE_S = 0.3
WRITTEN_S = 0.15  # a file that was written to so lately may be written to again: not every save is one step
WRITES_MAX = 5
AGAIN_S = 1.0

log = structlog.get_logger()

Entries = Mapping[str, Entry]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What a new reading of the folder changes. `announce`: manifests that gateways have to know."""

    announce: tuple[Manifest, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.changed or self.gone)


def difference(old: Entries, new: Entries) -> Difference:
    """What is different in `new`: functions that are new or changed, and functions that are gone."""
    changed = [name for name, entry in new.items() if old.get(name) != entry]
    return Difference(
        announce=tuple(
            new[name].manifest
            for name in changed
            if name not in old or old[name].manifest != new[name].manifest
        ),
        changed=tuple(sorted(changed)),
        gone=tuple(sorted(old.keys() - new.keys())),
    )


def is_worse(old: Entries, new: Entries) -> bool:
    """Whether a function that could run is gone, or can run no more."""
    return any(
        entry.code is not None and (name not in new or new[name].code is None) for name, entry in old.items()
    )


class Reloader:
    """Reads the folder again: `read(generation)` gives its catalog, and may raise `SettingsError`."""

    def __init__(
        self, read: Callable[[int], Catalog], entries: Entries, now: Callable[[], float] = time.time
    ) -> None:
        """`now`: Unix seconds, as files have them."""
        self._read = read
        self._entries = entries
        self._now = now
        self._generation = 0
        self._unread: set[Path] = set()

    async def reload(self, paths: Collection[Path]) -> tuple[Entries, Difference] | None:
        """The functions after a change of `paths`, and what is different.

        None if nothing is, or if the folder cannot be read: then its functions stay what they were.
        """
        self._unread.update(paths)
        catalog = await self._catalog()
        if catalog is not None and is_worse(self._entries, catalog.entries):
            await asyncio.sleep(LOOK_TWICE_S)
            catalog = await self._catalog()
        if catalog is not None and _shared(self._unread, self._entries, catalog.entries):
            self._generation += 1
            catalog = await self._catalog()
        if catalog is None:
            return None
        self._unread.clear()
        for warning in catalog.warnings:
            log.warning("functions", text=warning)
        different = difference(self._entries, catalog.entries)
        self._entries = catalog.entries
        return (catalog.entries, different) if different else None

    async def _catalog(self) -> Catalog | None:
        """The folder as it stands once nobody writes to it, or writes on and on."""
        try:
            for _ in range(WRITES_MAX):
                catalog = _unless_installing(
                    await asyncio.to_thread(self._read, self._generation), self._entries
                )
                age_s = self._now() - _written_at(catalog.entries)
                if not 0 <= age_s < WRITTEN_S:  # below 0 is the time of another machine
                    break
                await asyncio.sleep(WRITTEN_S - age_s)
            return catalog
        except SettingsError as error:
            log.warning("functions_not_read", why=str(error), hint="what was read before is served on")
            return None


def _unless_installing(catalog: Catalog, before: Entries) -> Catalog:
    """The catalog, in which a function whose dependencies are being installed stays what it was."""
    entries = {
        name: before.get(name, entry) if entry.installing else entry
        for name, entry in catalog.entries.items()
    }
    return replace(catalog, entries=entries)


def _shared(paths: Collection[Path], *readings: Entries) -> bool:
    """Whether one of the paths is a module that any function may have imported."""
    own = {entry.code.path for entries in readings for entry in entries.values() if entry.code is not None}
    return any(path.suffix in SUFFIXES and path not in own for path in paths)


def _written_at(entries: Entries) -> float:
    """When the youngest file of a function was written to (Unix seconds)."""
    state = (_state(entry.code.path) for entry in entries.values() if entry.code is not None)
    return max((written_ns for written_ns, _ in filter(None, state)), default=0) / 1e9


class _CodeFilter(DefaultFilter):
    """Passes on what a change of the functions may be: their code, `.env`, what they list, or a folder."""

    def __init__(self, listings: Collection[str]) -> None:
        super().__init__()
        self._listings = listings

    def __call__(self, change: Change, path: str) -> bool:
        saved = Path(path)
        of_use = saved.suffix in {*SUFFIXES, ""} or any(concerns(saved, each) for each in self._listings)
        return of_use and super().__call__(change, path)


async def changes(
    folder: Path, working_directory: Path, listings: Collection[str] = ()
) -> AsyncGenerator[Collection[Path], None]:
    """The paths that were saved, whenever some were; for ever.

    They are in the functions folder, or the project's file or its `.env`, in either of the places where
    those may lie. `listings` are the names of files that list dependencies.
    """
    found: asyncio.Queue[Collection[Path]] = asyncio.Queue(1)
    files = [place / name for place in (working_directory, folder.parent) for name in (*NAMES, DOTENV)]
    async with background(_watch_folder(folder, listings, found), _watch_files(files, found)):
        while True:
            yield await found.get()


async def _watch_folder(
    folder: Path, listings: Collection[str], found: asyncio.Queue[Collection[Path]]
) -> None:
    """Report what changes in a folder, and go on when it is replaced, as by a change of branches."""
    while True:
        try:
            await _watch_one(folder, listings, found)
        except OSError as error:  # it is away for a moment, or the system watches no more files
            log.warning("functions_not_watched", folder=str(folder), why=str(error))
            await asyncio.sleep(AGAIN_S)
        await found.put([folder])


async def _watch_one(folder: Path, listings: Collection[str], found: asyncio.Queue[Collection[Path]]) -> None:
    """Report what changes in the folder that has this name now; return when another one has."""
    watched = _identity(folder)
    watching = awatch(
        folder,
        watch_filter=_CodeFilter(listings),
        debounce=GATHER_MS,
        step=QUIET_MS,
        rust_timeout=LOOK_MS,
        yield_on_timeout=True,
        ignore_permission_denied=True,
    )
    async with aclosing(watching):
        async for changed in watching:
            if changed:
                await found.put([Path(path) for _, path in changed])
            if _identity(folder) != watched:
                return


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


async def _watch_files(files: Sequence[Path], found: asyncio.Queue[Collection[Path]]) -> None:
    """Report when one of a few files changes, comes or goes; looking is cheaper than watching two folders."""
    before = [_state(file) for file in files]
    while True:
        await asyncio.sleep(LOOK_AT_FILES_S)
        now = [_state(file) for file in files]
        if now != before:
            before = now
            await found.put(files)


def _state(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size

"""The dependencies of functions: which list is whose, and what installing it has come to.

It installs nothing itself, the languages' installers do; here they run beside each other, each list
once, and again only when it is saved. What does not install is the error of its functions alone.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from runner.sandbox.runtime import InstallError
from runner.scan import Found

__all__ = ["Dependencies", "Installed", "Installer", "concerns", "no_dependencies"]

AT_ONCE_MAX = 4

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What is installed for a function, in the words of `Runtime.install`, or why it is not.

    `generation` grows whenever it was installed anew, `installing` says that this has yet to end.
    """

    path: Path | None = None
    error: str | None = None
    generation: int = 0
    installing: bool = False


NOTHING = Installed()


class Installer(Protocol):
    """The part of `runner.sandbox.runtime.Runtime` that installs."""

    @property
    def listing(self) -> str:
        """The name of the files that it reads."""
        ...

    def install(self, listing: Path, cache: Path, *, python: Path) -> Path | None:
        """See `Runtime`."""
        ...


def no_dependencies(_found: Found) -> Installed:
    """What is installed where nothing ever is."""
    return NOTHING


def concerns(path: Path, listing: str) -> bool:
    """Whether a file is a list of this name, or one that goes with it by its name: package-lock.json."""
    name = Path(listing)
    return path.suffix == name.suffix and path.name.startswith(name.stem)


class Dependencies:
    """The dependencies of the functions in a folder. `installers` are known by the runtime's name."""

    def __init__(
        self, folder: Path, cache: Path, installers: Mapping[str, Installer], *, python: Path
    ) -> None:
        self._folder = folder.absolute()
        self._cache = cache
        self._python = python
        self._installers = installers
        self._known: dict[Path, Installer] = {}
        self._results: dict[Path, Installed] = {}
        self._saves: dict[Path, int] = {}
        self._begun: set[tuple[Path, int]] = set()
        self._turns = asyncio.Semaphore(AT_ONCE_MAX)

    def of(self, found: Found) -> Installed:
        """What is installed for a function. What is not yet, `begin` will see to. For any thread."""
        installer = self._installers.get(found.runtime)
        listing = self._listing(found, installer.listing) if installer else None
        if installer is None or listing is None:
            return NOTHING
        self._known[listing] = installer
        error = f"{self._place(listing)} is being installed; the function can be called when that is done."
        return self._results.get(listing, Installed(error=error, installing=True))

    def saved(self, paths: Collection[Path]) -> None:
        """Some files were saved: what they concern is to be installed anew."""
        for listing in list(self._known):
            if any(_touches(path, listing) for path in paths) or self._folder in paths:
                self._saves[listing] = self._saves.get(listing, 0) + 1
                self._results.pop(listing, None)

    async def install(self) -> None:
        """Install what functions have been found to need; returns when all of it has ended."""
        async with asyncio.TaskGroup() as tasks:
            self.begin(tasks)

    def begin(self, tasks: asyncio.TaskGroup, then: Callable[[], Awaitable[None]] | None = None) -> None:
        """Install, in `tasks`, what is needed and not begun; `then` is awaited after each.

        Errors are kept for `of`. What is saved in the middle of its install is begun anew, and what the
        old one comes to forgotten, so that nobody waits for a list that has been corrected.
        """
        for listing, installer in list(self._known.items()):
            begun = listing, self._saves.get(listing, 0)
            if listing not in self._results and begun not in self._begun and listing.exists():
                self._begun.add(begun)
                tasks.create_task(self._install(listing, installer, then))

    async def _install(
        self, listing: Path, installer: Installer, then: Callable[[], Awaitable[None]] | None
    ) -> None:
        saves = self._saves.get(listing, 0)
        try:
            async with self._turns:
                path = await in_thread(lambda: installer.install(listing, self._cache, python=self._python))
            result = Installed(path=path, generation=saves)
        except InstallError as error:
            result = Installed(error=f"{self._place(listing)} {error}")
        finally:
            self._begun.discard((listing, saves))
        if saves == self._saves.get(listing, 0):
            self._results[listing] = result
            if then is not None:
                await then()

    def _listing(self, found: Found, name: str) -> Path | None:
        """The list of a function's own folder, else the one for all."""
        places = dict.fromkeys([found.path.parent, self._folder])
        return next((place / name for place in places if (place / name).is_file()), None)

    def _place(self, listing: Path) -> str:
        return f"{self._folder.name}/{listing.relative_to(self._folder)}"


def _touches(path: Path, listing: Path) -> bool:
    return path.parent == listing.parent and concerns(path, listing.name)


async def in_thread(function: Callable[[], _Result]) -> _Result:
    """Run `function` in a thread of its own, for which nobody waits when this is cancelled.

    What it started is on a leash and ends with this process (`runner.sandbox.leash`); the threads of
    asyncio's own would hold up the process's end.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_Result] = loop.create_future()

    def run() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
            _tell(lambda error=error: done.set_exception(error))  # type: ignore[misc]
        else:
            _tell(lambda: done.set_result(result))

    def _tell(how: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lambda: None if done.done() else how())

    threading.Thread(target=run, daemon=True, name="installing").start()
    return await done

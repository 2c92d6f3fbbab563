"""The workers' temporary folders: each has one of its own, and nothing is left of it afterwards.

They lie in a base folder of this guard, which nobody else can list, under names that cannot be guessed. The
guard holds a lock on the base as long as it lives; a base without one is what a killed guard has left, and
whoever finds it removes it. Standard library only.
"""

import fcntl
import itertools
import os
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["Temporary", "remove_leftovers", "remove_tree"]

PREFIX = "quarterhour-workers-"
LEFTOVERS_MAX = 100  # removed by one guard; the next one finds more
ENTRIES_MAX = 10_000  # looked at together
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Temporary:
    """The base folder of one guard."""

    def __init__(self) -> None:
        self.base, self._lock = _make_base()

    def make(self, user: tuple[int, int] | None) -> str:
        """A new folder that is `user`'s alone (user and group id; None: this process's own).

        Raises `OSError` if the machine has no room for it.
        """
        if _is_at(self.base, self._lock):
            _let_through(self._lock)
        else:  # a function that is the same user has removed it
            os.close(self._lock)
            self.base, self._lock = _make_base()
        folder = tempfile.mkdtemp(dir=self.base)
        if user is not None:
            os.chown(folder, *user)
        return folder

    def is_removed(self, folder: str) -> bool:
        """Remove it if it is empty. If not, it becomes this process's own, and is left to `remove_tree`."""
        try:
            os.rmdir(folder)  # noqa: PTH106 - it is on the way of each worker's end
        except FileNotFoundError:
            return True
        except NotADirectoryError:  # a link or a file, which its function has put in its place
            with suppress(OSError):
                os.unlink(folder)  # noqa: PTH108 - as above
            return True
        except OSError:
            with suppress(OSError):
                _take_over(folder)
            return False
        return True

    def close(self) -> None:
        """Remove the base, if all that was in it is gone."""
        with suppress(OSError):
            Path(self.base).rmdir()


def _make_base() -> tuple[str, int]:
    while True:
        base = tempfile.mkdtemp(prefix=PREFIX)
        try:
            lock = os.open(base, FOLDER)
        except FileNotFoundError:  # taken for a leftover before it was locked
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        _let_through(lock)
        if _is_at(base, lock):
            return base, lock
        os.close(lock)


def _is_at(path: str, opened: int) -> bool:
    """Whether this is still the path of what was opened."""
    try:
        return os.path.samestat(os.fstat(opened), os.lstat(path))
    except OSError:
        return False


def _let_through(base: int) -> None:
    """Workers of another user have to get through the base; nobody else has to."""
    os.fchmod(base, 0o711 if os.geteuid() == 0 else 0o700)


def _take_over(folder: str) -> None:
    """Make a folder root's own: a worker of the same user may begin before it is gone. Follows no link."""
    if os.geteuid() != 0:
        return
    opened = os.open(folder, FOLDER)
    try:
        os.fchown(opened, 0, 0)
        os.fchmod(opened, 0o700)
    finally:
        os.close(opened)


def remove_leftovers() -> None:
    """Remove the bases of guards that were killed, if they are this user's."""
    own = filter(_is_own, Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))
    for base in itertools.islice(own, LEFTOVERS_MAX):
        try:
            _remove_leftover(base)
        except OSError:  # in use, or gone by now
            continue


def _is_own(base: Path) -> bool:
    try:
        return base.lstat().st_uid == os.geteuid()
    except OSError:
        return False


def _remove_leftover(base: Path) -> None:
    lock = os.open(base, FOLDER)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name, is_folder in _some(lock):
            if is_folder:
                remove_tree(str(base / name))
            else:  # a function has put it there
                os.unlink(name, dir_fd=lock)
        base.rmdir()
    finally:
        os.close(lock)


def remove_tree(folder: str) -> None:
    """Remove a folder and all that is in it, however deep that is, and whatever its modes are.

    No link is followed, even if somebody changes the tree meanwhile: this may be root, and the tree is a
    function's. Folders are moved side by side first, so that depth costs neither stack nor descriptors.
    What cannot be removed stays.
    """
    pit = tempfile.mkdtemp(dir=Path(folder).parent)
    numbers = itertools.count()
    there, here = os.open(pit, FOLDER), os.open(Path(folder).parent, FOLDER)
    try:
        waiting = [_sink(Path(folder).name, here, there, next(numbers))]
        while waiting:
            name = waiting.pop()
            inner = os.open(name, FOLDER, dir_fd=there)
            try:
                while entries := _some(inner):
                    for entry, is_folder in entries:
                        if is_folder:
                            waiting.append(_sink(entry, inner, there, next(numbers)))
                        else:
                            os.unlink(entry, dir_fd=inner)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=there)
        Path(pit).rmdir()
    except OSError:
        return
    finally:
        os.close(there)
        os.close(here)


def _sink(name: str, source: int, pit: int, number: int) -> str:
    """Move a folder into the pit; its name there."""
    if os.geteuid() != 0:  # to move or to list one, its owner needs the right to
        os.chmod(name, 0o700, dir_fd=source)
    os.rename(name, str(number), src_dir_fd=source, dst_dir_fd=pit)
    return str(number)


def _some(folder: int) -> list[tuple[str, bool]]:
    with os.scandir(folder) as entries:
        some = itertools.islice(entries, ENTRIES_MAX)
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in some]

"""What installing has in common, whatever the language: locks, the installer's process, its last words.

It knows of no package manager and of no function. Everything blocks, so that it belongs into a thread.

An environment in the cache is a folder with a stamp that is written when it is complete; without one it
is removed and made anew. A lock file beside it is held alone while it is made, and shared by every
process that uses it for as long as that lives; locks end with their process, however that ends.
"""

import fcntl
import os
import re
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from runner.sandbox.runtime import InstallError

__all__ = [
    "LIMIT_S",
    "Installation",
    "failure",
    "hold",
    "installation",
    "installers_environment",
    "kept",
    "last_words",
    "remove_unused",
]

LIMIT_S = 600.0  # one install, from its first step to its last, and as long the wait for another process's
UNUSED_S = 30 * 24 * 3600
LOOK_S = 0.05
OUTPUT_BYTES_MAX = 64 * 1024
LINES_MAX = 12
WORDS_MAX = 1500
STAMP = ".quarterhour"
LEASH = Path(__file__).with_name("leash.py")

_NAMES = frozenset(
    {"PATH", "HOME", "LANG", "TMPDIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"}
)
_PREFIXES = ("PIP_", "UV_", "NPM_CONFIG_")

_in_use: dict[Path, int] = {}  # the shared locks of this process, held to its end

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """One install that is going on. `ends_at` (monotonic seconds) is the limit of all its steps."""

    listing: Path
    lock: int
    ends_at: float

    def run(self, name: str, *command: str | Path, environment: Mapping[str, str]) -> None:
        """Run a program in the listing's folder, to its end. Raises `InstallError` with its last words.

        `name` is what errors call it. The lock stays held until the program and all that it started are gone.
        """
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", LEASH, *command],
            cwd=self.listing.parent,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(self.lock,),
            start_new_session=True,
        )
        with process:  # leaving it closes standard input, which ends whatever is left
            status, output = _watch(process, self.ends_at)
        if status == "0":
            return
        why = f"ended with status {status}" if status else "could not be run"
        if time.monotonic() >= self.ends_at:
            why = f"did not end within {LIMIT_S:g} s"
        message = f"could not be installed: {name} {why}. {last_words(output)}"
        raise InstallError(message.rstrip())


@contextmanager
def installation(listing: Path, lock: int) -> Iterator[Installation]:
    """An install that is logged, and whose errors of the file system are `InstallError` too."""
    began = time.monotonic()
    log.info("installing_dependencies", file=str(listing))
    try:
        yield Installation(listing=listing, lock=lock, ends_at=began + LIMIT_S)
    except (OSError, InstallError) as error:
        why = error if isinstance(error, InstallError) else failure(error)
        log.warning("dependencies_not_installed", file=str(listing), why=str(why))
        raise why from None
    log.info("dependencies_installed", file=str(listing), seconds=round(time.monotonic() - began, 1))


def kept(place: Path, listing: Path, make: Callable[[Installation], None]) -> Path:
    """The environment `place` in the cache, made by `make` unless it is there, and in use from now on.

    Raises `InstallError`.
    """
    try:
        place.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        lock = _open_lock(place)
    except OSError as error:
        raise failure(error) from None
    try:
        hold(lock, shared=True)
        if not _is_complete(place):
            # Given up first: two that share it would wait for each other.
            fcntl.flock(lock, fcntl.LOCK_UN)
            _let_go(place)
            hold(lock)
            if not _is_complete(place):
                _make(place, listing, lock, make)
            hold(lock, shared=True)
    except BaseException:
        os.close(lock)
        raise
    with suppress(OSError):  # a cache that is only read is never tidied from here either
        os.utime(place / STAMP)
    _let_go(place)
    _in_use[place] = lock
    return place


def _let_go(place: Path) -> None:
    earlier = _in_use.pop(place, None)
    if earlier is not None:
        os.close(earlier)


def _make(place: Path, listing: Path, lock: int, make: Callable[[Installation], None]) -> None:
    with installation(listing, lock) as going_on:
        try:
            if place.exists():  # half made, by one that was killed
                shutil.rmtree(place)
            make(going_on)
            (place / STAMP).touch()
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise


def remove_unused(cache: Path, now: float | None = None) -> list[Path]:
    """Remove the environments that nobody uses and nobody used for 30 days. `now`: Unix seconds."""
    now = time.time() if now is None else now
    return [place for lock in sorted(cache.glob("*/*.lock")) if _remove_if_unused(place := _place(lock), now)]


def _remove_if_unused(place: Path, now: float) -> bool:
    try:
        if now - (place / STAMP).stat().st_mtime < UNUSED_S:
            return False
        lock = _open_lock(place)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (place / STAMP).unlink()  # first, so that what is left of it after a crash is not taken for whole
            shutil.rmtree(place)
        finally:
            os.close(lock)  # the file stays: were it removed, two processes could hold "the" lock
    except OSError:  # in use, already gone, or not ours to remove
        return False
    log.info("unused_dependencies_removed", folder=str(place))
    return True


def hold(lock: int, *, shared: bool = False) -> None:
    """Hold a lock (an open file or folder), alone or shared. Raises `InstallError` after `LIMIT_S`."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    ends_at = time.monotonic() + LIMIT_S
    while True:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= ends_at:
                message = f"could not be installed: another process has been at it for {LIMIT_S:g} s."
                raise InstallError(message) from None
            time.sleep(LOOK_S)


def installers_environment() -> dict[str, str]:
    """What installers see of this process's environment; the broker's password is not among it."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.upper() in _NAMES or name.upper().startswith(_PREFIXES)
    }


def last_words(output: bytes) -> str:
    """The end of what an installer said, without colours and without passwords in addresses."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode(errors="replace"))
    text = re.sub(r"//[^/@\s]*@", "//***@", text)
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    words = "\n".join(lines[-LINES_MAX:])
    return words if len(words) <= WORDS_MAX else f"…{words[-WORDS_MAX:]}"


def _watch(process: "subprocess.Popen[bytes]", ends_at: float) -> tuple[str, bytes]:
    """The exit status, empty without one in time, and the end of what was said."""
    assert process.stdout is not None  # noqa: S101 - both are pipes
    assert process.stderr is not None  # noqa: S101
    status, said = process.stdout.fileno(), process.stderr.fileno()
    output, ended = b"", b""
    with selectors.DefaultSelector() as selector:
        selector.register(status, selectors.EVENT_READ)
        selector.register(said, selectors.EVENT_READ)
        while (left_s := ends_at - time.monotonic()) > 0:
            # What was said before the end is in the pipe by then: it is read before the end is seen.
            ready = {key.fd for key, _ in selector.select(left_s)}
            if said in ready:
                data = os.read(said, OUTPUT_BYTES_MAX)
                output = (output + data)[-OUTPUT_BYTES_MAX:]
                if data:
                    continue
                selector.unregister(said)
            if status in ready:
                ended = os.read(status, 16)
                break
    return ended.decode().strip(), output


def _open_lock(place: Path) -> int:
    path = place.with_name(f"{place.name}.lock")
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return os.open(
            path, os.O_RDONLY | os.O_CLOEXEC
        )  # what is complete can be used from where it is only read


def _place(lock: Path) -> Path:
    return lock.with_name(lock.name.removesuffix(".lock"))


def _is_complete(place: Path) -> bool:
    return (place / STAMP).is_file()


def failure(error: OSError) -> InstallError:
    """What the file system refused, as the end of a sentence that begins with the listing."""
    return InstallError(f"could not be installed: {error.filename}: {error.strerror}.")

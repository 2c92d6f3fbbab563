"""Installing what a `requirements.txt` lists into a virtual environment of its own, with uv or else pip.

It runs in the runner, never in a worker. An environment has its place in the cache by its content: whoever
lists the same for the same Python shares it, and a changed list is another environment.
"""

import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from runner.sandbox.installing import Installation, failure, installers_environment, kept
from runner.sandbox.runtime import InstallError

__all__ = ["install"]

FILES_MAX = 100  # that refer to each other
FILE_BYTES_MAX = 1024 * 1024
VERSION_S = 10.0

_REFERENCE = re.compile(r"^\s*(?:-[rc]|--requirement|--constraint)[\s=]*(\S+)", re.MULTILINE)
_URL = re.compile(r"\b(?!file:)[a-z][a-z0-9+.-]*://\S*", re.IGNORECASE)
_LOCAL = re.compile(r"/|(?:^|\s)\.{1,2}(?:\s|$|\[)|\.(?:whl|zip|tar\.\w+)\b", re.MULTILINE)
_COMMENT = re.compile(r"(?:^|\s)#.*$", re.MULTILINE)


def install(listing: Path, cache: Path, *, python: Path) -> Path:
    """The virtual environment with what `listing` names; its interpreter is `bin/python` in it.

    It is made, by `python`, unless it is in `cache` already.
    Raises `InstallError`, whose message is the end of a sentence that begins with the listing.
    """
    place = cache.absolute() / "python" / _key(listing, python)
    return kept(place, listing, functools.partial(_make, listing, place, python))


def _make(listing: Path, place: Path, python: Path, going_on: Installation) -> None:
    environment = installers_environment()
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    interpreter = place / "bin" / "python"
    command: tuple[str | Path, ...]
    if uv:
        # It is to take the Python that there is, and to say so if there is none.
        environment["UV_PYTHON_DOWNLOADS"] = "never"
        going_on.run("uv", uv, "venv", "--quiet", "--python", python, place, environment=environment)
        command = (uv, "pip", "install", "--quiet", "--python", interpreter, "--requirement", listing)
    else:
        going_on.run("venv", python, "-m", "venv", place, environment=environment)
        pip = (interpreter, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet")
        command = (*pip, "install", "--requirement", listing)
    going_on.run("uv" if uv else "pip", *command, environment=environment)


def _key(listing: Path, python: Path) -> str:
    """A name for the content: of the list, of the lists that it refers to, and of the interpreter."""
    digest = hashlib.sha256()
    local = False
    for data in _contents(listing):
        digest.update(hashlib.sha256(data).digest())
        text = _COMMENT.sub("", data.decode(errors="replace"))
        local = local or _LOCAL.search(_URL.sub("", text)) is not None
    # What lies beside the list has another meaning for the same list in another folder.
    folder = str(listing.parent.absolute()) if local else ""
    try:
        version = _version(python, python.stat().st_mtime_ns)
    except OSError as error:
        raise failure(error) from None
    for part in (folder, str(python.absolute()), version, platform.platform()):
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()[:32]


def _contents(listing: Path) -> Iterator[bytes]:
    """The bytes of the list and of all to which it refers, in their order, each file once."""
    waiting, seen = [listing], {listing}
    for path in waiting:
        try:
            with path.open("rb") as file:
                data = file.read(FILE_BYTES_MAX + 1)
        except OSError as error:
            if path != listing:
                continue  # the installer will say so
            raise failure(error) from None
        if len(data) > FILE_BYTES_MAX or len(seen) > FILES_MAX:
            message = f"is too much: at most {FILES_MAX} files of {FILE_BYTES_MAX} bytes each are read."
            raise InstallError(message)
        yield data
        for reference in _REFERENCE.findall(data.decode(errors="replace")):
            other = Path(os.path.normpath(path.parent / reference))
            if "://" not in reference and other not in seen:
                seen.add(other)
                waiting.append(other)


@functools.lru_cache(maxsize=16)
def _version(python: Path, _changed_ns: int) -> str:
    if python == Path(sys.executable):
        return sys.version
    try:
        asked = subprocess.run(
            [python, "-I", "-S", "-c", "import sys; print(sys.version)"],
            capture_output=True,
            check=True,
            timeout=VERSION_S,
            env={},
        )
    except (OSError, subprocess.SubprocessError):
        message = f"could not be installed: {python} does not say which Python it is."
        raise InstallError(message) from None
    return asked.stdout.decode(errors="replace")

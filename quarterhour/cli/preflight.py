"""What `up` makes sure of before it starts anything; each refusal is one sentence."""

import errno
import fcntl
import os
import random
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

__all__ = ["check_functions", "claim", "free_address"]

# Below those that systems take for connections to others: until a server listens, one of those could be
# taken for that, and so could it be while the server is started again.
QUIET_PORTS = range(20_000, 32_000)
TRIES_MAX = 50


def check_functions(folder: Path) -> None:
    """Refuse a folder of functions that is not there."""
    if not folder.is_dir():
        text = (
            f"There is no folder {folder} with functions; make it (mkdir {folder}), "
            "or name another one with --functions."
        )
        raise click.ClickException(text)


@contextmanager
def claim(data_dir: Path, *, mode: int = 0o700) -> Iterator[None]:
    """Hold the data directory for this process alone; it is made, with `mode`, if it is not there.

    One that is there is opened to others as far as `mode` says, and never closed. The lock goes with the
    process, however that ends.
    """
    try:
        data_dir.mkdir(mode=mode, parents=True, exist_ok=True)
        descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        _make_sure_of_writing(data_dir)
        _open_to_others(data_dir, mode)
    except OSError as error:
        text = (
            f"The data directory {data_dir} cannot be written ({error.strerror}); "
            "make it writable, or name another one with --data-dir."
        )
        raise click.ClickException(text) from None
    with os.fdopen(descriptor, "r+") as file:
        _lock(file.fileno(), data_dir)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def free_address(host: str, port: int) -> int:
    """The port, once it is known that a server can listen there; a free one for port 0."""
    *others, last = [port] if port else random.sample(QUIET_PORTS, TRIES_MAX)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        for one in others:
            with suppress(OSError), socket.socket(family, kind, protocol) as probe:
                return _bound(probe, address, one)
        with socket.socket(family, kind, protocol) as probe:
            return _bound(probe, address, last)
    except OSError as error:
        raise click.ClickException(_refusal(host, last, error)) from None


def _bound(probe: socket.socket, address: tuple[Any, ...], port: int) -> int:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind((address[0], port, *address[2:]))
    return port


def _make_sure_of_writing(folder: Path) -> None:
    # The lock may be an old file in a folder that has become read-only since, or a full disk.
    probe = folder / ".writable"
    probe.write_bytes(b"1")
    probe.unlink()


def _open_to_others(folder: Path, mode: int) -> None:
    now = stat.S_IMODE(folder.stat().st_mode)
    if missing := mode & 0o077 & ~now:
        folder.chmod(now | missing)


def _lock(descriptor: int, data_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
        text = (
            f"Another `quarterhour up` (process {holder or 'unknown'}) uses the data directory {data_dir}; "
            "stop it, or name another one with --data-dir."
        )
        raise click.ClickException(text) from None


def _refusal(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use; stop what uses it, or choose another one with --port."
    if error.errno == errno.EACCES:
        return f"Port {port} is not allowed for this user; choose one from 1024 up with --port."
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine; choose another one with --host."
    return f"It is not possible to listen on {host} port {port}: {error.strerror}."

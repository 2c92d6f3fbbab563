"""The broker's address: servers, what is said about them, and how to name them without their passwords."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from quarterhour.errors import SettingsError

__all__ = ["Address", "parse_address"]

CERTIFICATES = ("ca", "cert", "key")
CREDENTIALS = ("creds", "nkey", "token")
_UNITS = " KMGT"
_SIZE = re.compile(r"([1-9][0-9]{0,17})(?:([KMGT])(B?))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the servers are. `place` names them in messages; `replicas` is None if nobody asked for any.

    `always_synced` says that the operator knows the servers to sync before they acknowledge, and
    `store_bytes_max` how much each of them stores at most: NATS does not tell its clients. `files` are the
    certificates and credentials by their parameters.
    """

    servers: tuple[str, ...]
    place: str
    replicas: int | None = None
    always_synced: bool = False
    store_bytes_max: int | None = None
    files: Mapping[str, Path] = field(default_factory=dict)

    @property
    def encrypted(self) -> bool:
        """Whether one of the servers is to be spoken to over TLS."""
        return any(server.startswith("tls:") for server in self.servers)


def parse_address(url: str) -> Address:
    """The address in `nats://host:4222,nats://other:4222?replicas=3`. Raises `SettingsError`.

    After the `?` of any of them: `replicas=N` (how many servers keep each message; 1, 3 or 5),
    `sync_interval=always` and `max_file_store=SIZE` (the servers are known to be set so), and the paths
    of files: `ca`, `cert` and `key` for TLS, one of `creds`, `nkey` and `token` to log in.
    """
    parts = [_split(one) for one in url.strip().removesuffix(",").split(",")]
    said = dict(pair for part in parts for pair in parse_qsl(part.query, keep_blank_values=True))
    replicas, sync = said.pop("replicas", None), said.pop("sync_interval", None)
    store = said.pop("max_file_store", None)
    store_bytes_max = None if store is None else _bytes(store)
    files = {name: Path(said.pop(name)) for name in (*CERTIFICATES, *CREDENTIALS) if said.get(name)}
    if said or replicas not in {None, "1", "3", "5"} or sync not in {None, "always"}:
        message = (
            "After its ?, --broker takes replicas=1, 3 or 5, sync_interval=always, max_file_store=SIZE, "
            "and files: ca=, cert=, key=, creds=, nkey=, token=."
        )
        raise SettingsError(message)
    address = Address(
        servers=tuple(urlunsplit((part.scheme, part.netloc, "", "", "")) for part in parts),
        place=", ".join(part.netloc.rpartition("@")[2] for part in parts),
        replicas=int(replicas) if replicas else None,
        always_synced=sync == "always",
        store_bytes_max=store_bytes_max,
        files=files,
    )
    _check(address, named=any(part.username is not None for part in parts))
    return address


def _check(address: Address, *, named: bool) -> None:
    """Raise `SettingsError` for what contradicts itself. `named`: a user, or a token, is in the URL."""
    if not address.encrypted and any(name in address.files for name in CERTIFICATES):
        message = "--broker names a certificate, which is for TLS: write tls:// instead of nats://."
        raise SettingsError(message)
    if ("key" in address.files) and "cert" not in address.files:
        message = "--broker names a key=, but not the certificate (cert=) that it belongs to."
        raise SettingsError(message)
    if named + sum(name in address.files for name in CREDENTIALS) > 1:
        message = "--broker takes one way to log in: a user before the @, or creds=, or nkey=, or token=."
        raise SettingsError(message)


def _bytes(size: str) -> int:
    """A size as NATS's configuration has it: `10GB` is 10 times 1024³ bytes, `10G` 10 times 1000³."""
    parts = _SIZE.fullmatch(size)
    if parts is None:
        message = "max_file_store in --broker is a number of bytes, or one with a unit, such as 10GB."
        raise SettingsError(message)
    number, unit, binary = parts.groups()
    factor: int = (1024 if binary else 1000) ** _UNITS.index((unit or " ").upper())
    return int(number) * factor


def _split(one: str) -> SplitResult:
    try:
        part = urlsplit(one.strip())
        usable = bool(part.scheme in {"nats", "tls"} and part.hostname) and part.port != 0
    except ValueError:  # a port that is no number
        usable, part = False, SplitResult("", "", "", "", "")
    if not usable:
        message = "--broker takes nats://HOST:PORT or tls://HOST:PORT, several separated by commas."
        raise SettingsError(message)
    return part

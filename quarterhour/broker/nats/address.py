"""The broker's address: servers, what is said about them, and how to name them without their passwords."""

from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from quarterhour.errors import SettingsError

__all__ = ["Address", "parse_address"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the servers are. `place` names them in messages; `replicas` is None if nobody asked for any.

    `always_synced` says that the operator knows the servers to sync before they acknowledge:
    NATS does not tell its clients.
    """

    servers: tuple[str, ...]
    place: str
    replicas: int | None = None
    always_synced: bool = False


def parse_address(url: str) -> Address:
    """The address in `nats://host:4222,nats://other:4222?replicas=3`. Raises `SettingsError`.

    After the `?` of any of them: `replicas=N` (how many servers keep each message; 1, 3 or 5) and
    `sync_interval=always` (the servers are known to be set so).
    """
    parts = [_split(one) for one in url.strip().removesuffix(",").split(",")]
    said = dict(pair for part in parts for pair in parse_qsl(part.query, keep_blank_values=True))
    replicas, sync = said.pop("replicas", None), said.pop("sync_interval", None)
    if said or replicas not in {None, "1", "3", "5"} or sync not in {None, "always"}:
        message = "After its ?, --broker takes replicas=1, 3 or 5, and sync_interval=always."
        raise SettingsError(message)
    return Address(
        servers=tuple(urlunsplit((part.scheme, part.netloc, "", "", "")) for part in parts),
        place=", ".join(part.netloc.rpartition("@")[2] for part in parts),
        replicas=int(replicas) if replicas else None,
        always_synced=sync == "always",
    )


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

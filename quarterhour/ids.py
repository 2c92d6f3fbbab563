"""Ids of invocations: UUIDv7, so that they sort by the time of their acceptance."""

import hashlib
import re
import secrets
import socket
import uuid
from collections.abc import Callable

import uuid_utils

__all__ = ["MakeId", "firing_id", "is_invocation_id", "made_at", "new_id", "new_process_name"]

MakeId = Callable[[], str]

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def new_id() -> str:
    """A new UUIDv7 in its usual text form."""
    return str(uuid_utils.uuid7())


def firing_id(function: str, moment: float) -> str:
    """The id of a schedule's firing at `moment` (Unix s): a UUIDv7, the same whoever makes it."""
    milliseconds = round(moment * 1000)
    digest = hashlib.sha256(f"{function} {milliseconds}".encode()).digest()
    data = bytearray(milliseconds.to_bytes(6, "big") + digest[:10])
    data[6] = data[6] & 0x0F | 0x70  # version 7
    data[8] = data[8] & 0x3F | 0x80  # the variant of RFC 9562
    return str(uuid.UUID(bytes=bytes(data)))


def is_invocation_id(text: str) -> bool:
    """Whether `text` has the form of an id, and so is safe as one token of a broker's subject."""
    return _ID.fullmatch(text) is not None


def made_at(invocation_id: str) -> float:
    """When an id was made (Unix s), as it says itself."""
    return uuid.UUID(invocation_id).int / 2**80 / 1000


def new_process_name() -> str:
    """A name for a process, unique among all hosts: its host's, and a random part."""
    host = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname())[:40] or "host"
    return f"{host}-{secrets.token_hex(4)}"

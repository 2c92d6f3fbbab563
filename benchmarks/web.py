"""HTTP for the benchmarks' own questions, over one kept connection; load is `load`'s business."""

import http.client
import json
import socket
import time
from types import TracebackType
from typing import Any, Self

from benchmarks.errors import give_up

__all__ = ["Session", "free_port", "get_json", "listens", "status_of"]

TIMEOUT_S = 60.0
PROBE_S = 2.0


class Session:
    """A connection to a gateway that is kept open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)

    def __enter__(self) -> Self:
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, wanted: int = 200) -> tuple[http.client.HTTPResponse, bytes]:
        """The answer and its body. Ends the benchmark if the status is another one."""
        self._connection.request(method, path)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != wanted:
            message = f"{method} {path} answered {answer.status}: {body[:500].decode(errors='replace')}"
            give_up(message)
        return answer, body

    def status(self, method: str, path: str) -> int:
        """The status of the answer."""
        self._connection.request(method, path)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def timed(self, path: str) -> float:
        """Seconds that a GET takes."""
        began = time.perf_counter()
        self.ask("GET", path)
        return time.perf_counter() - began


def status_of(port: int, path: str) -> int:
    """The status of the answer to a GET, 0 if there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def get_json(port: int, path: str) -> Any:
    """The JSON at a path."""
    with Session(port) as session:
        return json.loads(session.ask("GET", path)[1])


def listens(port: int) -> bool:
    """Whether somebody takes connections on a loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A loopback port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

"""Shedding: an overloaded gateway refuses requests to functions before its server has read them.

To parse a request, make its task and send its answer costs a server in Python as much as to serve it: a
gateway that refused only then would be busy with refusing. So what has arrived in one piece, and is as plain
as nearly all requests are, is answered in its place. Anything else is left to the server.
"""

import asyncio
import re
from http import HTTPStatus

from gateway.asgi import Answer
from gateway.directory import Functions
from gateway.metrics import Metrics
from gateway.pressure import Pressure
from gateway.problems import Code, Problem, problem_answer
from gateway.request import function_name, is_invocation
from gateway.response import wire_headers
from gateway.routes import at_default_route
from quarterhour.function import Manifest
from quarterhour.ids import MakeId, new_id
from quarterhour.route import is_gateways

__all__ = ["WEIGHED", "Shedding", "plain_request"]

WEIGHED = "weighed"  # what the state of a request's scope says if it was let through already

PLAIN_BYTES_MAX = 16 * 1024

_HEAD = re.compile(
    rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.1\r\n(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}:[\t -~\x80-\xff]*\r\n)+\r\n"
)
# Who has one of these is not told the same as everybody, or not in the same way, or has more to say.
_NOT_PLAIN = re.compile(
    rb"\r\n(?:transfer-encoding|expect|upgrade|origin|connection:(?![ \t]*keep-alive[ \t]*\r\n))",
    re.IGNORECASE,
)
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,6})[ \t]*(?=\r\n)", re.IGNORECASE)
_LENGTHS = re.compile(rb"\r\ncontent-length", re.IGNORECASE)
_HOSTS = re.compile(rb"\r\nhost:", re.IGNORECASE)


class Shedding:
    """What a gateway refuses, and in which words."""

    def __init__(
        self,
        pressure: Pressure,
        functions: Functions,
        metrics: Metrics,
        stopping: asyncio.Event,
        make_id: MakeId = new_id,
    ) -> None:
        self._pressure = pressure
        self._functions = functions
        self._metrics = metrics
        self._stopping = stopping
        self._make_id = make_id

    @property
    def is_due(self) -> bool:
        """Whether requests should be weighed before they are read; not at the end, when connections close."""
        return self._pressure.is_overloaded and not self._stopping.is_set()

    def refusal(self, method: str, path: bytes) -> bytes | None:
        """All that a server sends to refuse a plain request; None if the request is to be served."""
        problem = self.complaint()
        if problem is None:
            return None
        answer = problem_answer(problem)
        self._metrics.request(self._function(method, path), answer.status)
        return _on_the_wire(answer, self._make_id())

    def complaint(self, *, weighed: bool = False) -> Problem | None:
        """Why one more request is refused; None if it is not. `weighed`: it was let through before.

        Whoever asks has to refuse it then: it is one of the share that is to be refused.
        """
        pressure = self._pressure
        if not weighed and pressure.refuses():
            detail = "This gateway is asked for more than it can do in time, so it refuses some requests."
            return Problem(code=Code.OVERLOADED, detail=detail)
        if pressure.is_full:
            detail = f"{pressure.most} requests are under way here already."
            return Problem(code=Code.OVERLOADED, detail=detail)
        return None

    def _function(self, method: str, path: bytes) -> Manifest | None:
        if is_invocation(path):
            return at_default_route(self._functions.by_name.get(function_name(path) or ""), method)
        found = self._functions.routes.find(path, method)
        return None if found is None else found.manifest


def plain_request(data: bytes) -> tuple[str, bytes] | None:
    """Method and path of a request to a function, if that is what this is, whole and beyond all doubt."""
    head = _HEAD.match(data, 0, PLAIN_BYTES_MAX)
    if head is None or _NOT_PLAIN.search(data, 0, head.end()):
        return None
    lengths = _LENGTH.findall(data, 0, head.end())
    if len(lengths) > 1 or len(lengths) != len(_LENGTHS.findall(data, 0, head.end())):
        return None
    if len(data) - head.end() != (int(lengths[0]) if lengths else 0):
        return None
    if len(_HOSTS.findall(data, 0, head.end())) != 1:
        return None
    method, target = head.groups()
    path = target.partition(b"?")[0]
    # The gateway's own addresses may be written in many ways: with escapes, or more slashes.
    may_be_ours = not is_invocation(path) and (
        b"%" in path or path.startswith(b"//") or is_gateways(path.decode("ascii"))
    )
    return None if may_be_ours or method == b"HEAD" else (method.decode("ascii"), path)


def _on_the_wire(answer: Answer, request_id: str) -> bytes:
    lines = [b"HTTP/1.1 %d %b" % (answer.status, HTTPStatus(answer.status).phrase.encode("ascii"))]
    lines += [b"%b: %b" % pair for pair in wire_headers(answer, request_id=request_id)]
    return b"\r\n".join([*lines, b"", answer.body])

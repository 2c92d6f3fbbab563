"""The edge: the ASGI layer in front of Quart.

It checks the header block of every request, and finds out whose it is: a function's, which is the hot path,
or Quart's. It never decodes a path for a function, and never reads a body.
"""

import asyncio
from dataclasses import dataclass, field
from urllib.parse import unquote

from gateway.access import CALLER, Access, Caller
from gateway.admission import NOT_READ
from gateway.arrival import Arrival, send_answer
from gateway.asgi import Answer, App, Message, Receive, Scope, Send
from gateway.body import BodyLimits, Incoming, Memory
from gateway.cors import Cors
from gateway.directory import Functions
from gateway.invoking import Invoker
from gateway.problems import Code, Problem, problem_answer
from gateway.request import Head, bad_head, is_invocation, origin_form, read_head
from gateway.routes import Destination
from quarterhour.body import INLINE_BYTES_MAX
from quarterhour.broker.port import Connection
from quarterhour.ids import MakeId, new_id
from quarterhour.route import is_gateways

__all__ = ["Edge", "EdgeRooms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeRooms:
    """What the edge works with.

    `header_bytes_max`: of a request's header block. `stopping`: no connection is kept for a further request.
    """

    broker: Connection
    functions: Functions
    access: Access
    invoker: Invoker
    memory: Memory
    stopping: asyncio.Event
    header_bytes_max: int
    cors: Cors
    body: BodyLimits = field(default_factory=BodyLimits)
    make_id: MakeId = new_id


class Edge:
    """An ASGI application: the functions, and `inner` for everything else."""

    def __init__(self, inner: App, rooms: EdgeRooms) -> None:
        self._inner = inner
        self._rooms = rooms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._not_http(scope, receive, send)
            return
        head = read_head(scope)
        raw_path = origin_form(scope["raw_path"])
        if not is_invocation(raw_path):
            scope = _with_path(scope, raw_path)
        send = self._rooms.cors.readable(scope, send)
        if self._rooms.stopping.is_set():
            send = _closing(send)
        whose = self._whose(scope, head, raw_path)
        if isinstance(whose, Caller):
            await self._inner({**scope, CALLER: whose}, receive, send)
            return
        request = Arrival(
            id=self._rooms.make_id(),
            scope=scope,
            head=head,
            raw_path=raw_path,
            destination=whose if isinstance(whose, Destination) else None,
            incoming=self._incoming(head, receive),
            receive=receive,
            send=send,
        )
        try:
            if isinstance(whose, Answer):
                await send_answer(whose, request)
            else:
                await self._rooms.invoker.serve(request)
        finally:
            request.incoming.release()

    def _whose(self, scope: Scope, head: Head, raw_path: bytes) -> Answer | Caller | Destination | None:
        """Its answer if it goes no further, who asks if it is Quart's, or a function's route (None: by name).

        What a browser asks for a page (CORS) is checked first as well: it may be as malformed as any request.
        """
        rooms = self._rooms
        if problem := bad_head(head, scope, raw_path, rooms.header_bytes_max):
            return problem_answer(problem)
        if preflight := rooms.cors.preflight(scope):
            return preflight
        if is_invocation(raw_path):
            return None
        found: Caller | Destination | Problem | None = self._destination(scope)
        if found is None:
            found = rooms.access.to_the_rest(scope, head)
        elif isinstance(found, Problem):
            found = rooms.access.to_some_function(head) or found
        return problem_answer(found) if isinstance(found, Problem) else found

    async def _not_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._inner(scope, receive, send)

    def _destination(self, scope: Scope) -> Destination | Problem | None:
        functions = self._rooms.functions
        # What Quart has an answer to is Quart's: so this is asked of the path as Quart sees it.
        if is_gateways(scope["path"]):
            return None
        if not functions.ready:
            return Problem(code=Code.NOT_READY, detail=NOT_READ)
        return functions.routes.find(scope["raw_path"], scope["method"]) if functions.routes else None

    def _incoming(self, head: Head, receive: Receive) -> Incoming:
        rooms = self._rooms
        inline_bytes_max = min(INLINE_BYTES_MAX, rooms.broker.body_bytes_max)
        return Incoming(head, receive, rooms.body, memory=rooms.memory, inline_bytes_max=inline_bytes_max)


def _closing(send: Send) -> Send:
    """Tell the client that this connection takes no further request: its next one goes elsewhere."""

    async def send_and_close(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return send_and_close


def _with_path(scope: Scope, raw_path: bytes) -> Scope:
    """The scope with the path as Quart will read it: what is asked about a path must be asked of that one."""
    if raw_path is scope["raw_path"] and not scope["path"].startswith("//"):
        return scope
    path = unquote(raw_path.decode("latin-1"))
    if path.startswith("//"):
        path = "/" + path.lstrip("/")
    return {**scope, "path": path, "raw_path": raw_path}

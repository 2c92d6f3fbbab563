"""The edge: the ASGI layer in front of Quart.

It checks the header block of every request, and serves the functions' addresses itself, which is
the hot path; everything else is Quart's. It never decodes a path and never buffers past a limit.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import assert_never
from urllib.parse import unquote

import structlog

from gateway.admission import NOT_READ, Admitted, Decision, Unknown, admit
from gateway.asgi import Answer, App, Receive, Scope, Send
from gateway.background import Accepter, Backlog
from gateway.body import BodyLimits, Incoming
from gateway.calls import Caller, Relayed
from gateway.delay import due_at_of
from gateway.directory import Functions
from gateway.metrics import Metrics
from gateway.problems import Code, Problem, problem_answer
from gateway.relay import relay
from gateway.request import Head, bad_head, function_name, is_invocation, origin_form, read_head, request_of
from gateway.response import NOT_FOUND, accepted, outcome_answer, wire_headers
from gateway.routes import Destination, at_default_route
from quarterhour.broker.port import Connection, Stream
from quarterhour.clock import Clock
from quarterhour.errors import BrokerUnavailable, EnvelopeError, TooLarge
from quarterhour.function import Manifest
from quarterhour.ids import MakeId, new_id
from quarterhour.invocation import Invocation
from quarterhour.route import is_gateways
from quarterhour.settings import GatewaySettings

__all__ = ["Edge", "EdgeRooms"]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeRooms:
    """What the edge works with."""

    broker: Connection
    functions: Functions
    backlog: Backlog
    caller: Caller
    accepter: Accepter
    metrics: Metrics
    clock: Clock
    make_id: MakeId = new_id
    body: BodyLimits = field(default_factory=BodyLimits)


@dataclass(slots=True, kw_only=True)
class Arrival:
    """One request to a function, or to nothing. Not frozen: its body is read as it comes.

    `destination` is where its own routes have led it, None if it is for a default route.
    """

    id: str
    scope: Scope
    head: Head
    raw_path: bytes
    destination: Destination | None
    incoming: Incoming
    receive: Receive
    send: Send
    begun: bool = False  # its response is sent as it comes: no other answer can be


class Edge:
    """An ASGI application: the functions, and `inner` for everything else."""

    def __init__(self, inner: App, rooms: EdgeRooms, settings: GatewaySettings) -> None:
        self._inner = inner
        self._rooms = rooms
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._not_http(scope, receive, send)
            return
        head = read_head(scope)
        raw_path = origin_form(scope["raw_path"])
        problem = bad_head(head, scope, self._settings.header_bytes_max)
        destination = None
        if problem is None and not is_invocation(raw_path):
            scope = _with_path(scope, raw_path)
            found = self._destination(scope)
            match found:
                case None:
                    await self._inner(scope, receive, send)
                    return
                case Problem():
                    problem = found
                case Destination():
                    destination = found
                case _:
                    assert_never(found)
        request = Arrival(
            id=self._rooms.make_id(),
            scope=scope,
            head=head,
            raw_path=raw_path,
            destination=destination,
            incoming=Incoming(scope, head, receive, self._rooms.body),
            receive=receive,
            send=send,
        )
        answer = await self._serve(request) if problem is None else problem_answer(problem)
        if not request.begun:
            await _send(answer, request)

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

    async def _serve(self, request: Arrival) -> Answer:
        if request.destination is not None:
            manifest: Manifest | None = request.destination.manifest
            name: str | None = request.destination.manifest.name
        else:
            name = function_name(request.raw_path)
            known = None if name is None else self._rooms.functions.by_name.get(name)
            manifest = at_default_route(known, request.scope["method"])
        answer = await self._answer(request, name, manifest)
        self._rooms.metrics.request(manifest, answer.status)
        return answer

    async def _answer(self, request: Arrival, name: str | None, manifest: Manifest | None) -> Answer:
        # What is no name is no function, whatever is known at the moment.
        decision = Unknown() if name is None else self._decide(name, manifest)
        match decision:
            case Unknown():
                return NOT_FOUND
            case Problem():
                return problem_answer(decision)
            case Admitted(manifest=admitted):
                due_at = due_at_of(request.head, admitted, now=self._rooms.clock.now())
                if isinstance(due_at, Problem):
                    return problem_answer(due_at)
                body = await request.incoming.read(self._body_bytes_max)
                if isinstance(body, Problem):
                    return problem_answer(body)
                return await self._run(self._invocation(admitted, request, body, due_at), admitted, request)
            case _:
                assert_never(decision)

    def _decide(self, name: str, manifest: Manifest | None) -> Decision:
        rooms = self._rooms
        return admit(
            manifest,
            connected=rooms.broker.connected,
            ready=rooms.functions.ready,
            waiting=rooms.backlog.waiting(name),
            waiting_max=self._settings.waiting_max,
            call_scheduled=self._settings.call_scheduled,
        )

    @property
    def _body_bytes_max(self) -> int:
        return min(self._settings.request_bytes_max, self._rooms.broker.body_bytes_max)

    def _invocation(
        self, manifest: Manifest, request: Arrival, body: bytes | None, due_at: float | None
    ) -> Invocation:
        now = self._rooms.clock.now()
        return Invocation(
            id=request.id,
            function=manifest.name,
            mode=manifest.mode,
            attempt=1,
            accepted_at=now,
            due_at=now if due_at is None else max(due_at, now),
            request=request_of(
                request.scope,
                request.head,
                request.raw_path,
                request_id=request.id,
                trusted=self._settings.trusted_proxies,
                params=request.destination.params if request.destination else {},
            ),
            body=body,
            trace=request.head.trace,
        )

    async def _run(self, invocation: Invocation, manifest: Manifest, request: Arrival) -> Answer:
        try:
            if manifest.background:
                return await self._accept(invocation)
            return await self._call(invocation, manifest, request)
        except BrokerUnavailable as error:
            detail = f"{error} It is not known whether the invocation was taken on."
            problem = Problem(code=Code.BROKER_UNAVAILABLE, detail=detail)
        except TooLarge as error:
            problem = Problem(code=Code.BODY_TOO_LARGE, detail=str(error))
        except EnvelopeError as error:
            problem = Problem(code=Code.BAD_REPLY, detail=str(error))
        except Exception:
            # A fault of ours in one request: the client gets an answer of ours, not a server's.
            log.exception("request_failed", function=manifest.name, invocation=invocation.id)
            problem = Problem(code=Code.INTERNAL, detail="The gateway failed; its log says why.")
        log.warning("request_refused", function=manifest.name, code=problem.code, why=problem.detail)
        return problem_answer(problem)

    async def _accept(self, invocation: Invocation) -> Answer:
        await self._rooms.accepter.accept(invocation)
        self._rooms.metrics.accepted(invocation.function)
        return accepted(invocation.id)

    async def _call(self, invocation: Invocation, manifest: Manifest, request: Arrival) -> Answer:
        result = await self._rooms.caller.call(invocation, manifest, partial(_relay, request))
        if isinstance(result, Relayed):
            return Answer(status=result.status)
        if isinstance(result, Problem):
            if request.begun:
                _log_cut(request, result.detail)
            return problem_answer(result)
        return outcome_answer(
            result,
            expose_errors=self._settings.expose_errors,
            body_bytes_max=self._settings.response_bytes_max,
        )


def _with_path(scope: Scope, raw_path: bytes) -> Scope:
    if raw_path is scope["raw_path"]:
        return scope
    return {**scope, "path": unquote(raw_path.decode("latin-1")), "raw_path": raw_path}


async def _relay(request: Arrival, stream: Stream) -> None:
    """Send a response as it comes. One that breaks off is left without an end: the server cuts it."""
    request.begun = True
    broken = await relay(
        stream,
        method=request.scope["method"],
        request_id=request.id,
        receive=request.receive,
        send=request.send,
    )
    if broken is not None:
        _log_cut(request, str(broken))


def _log_cut(request: Arrival, why: str) -> None:
    log.warning("response_cut", invocation=request.id, why=why)


async def _send(answer: Answer, request: Arrival) -> None:
    send = request.send
    headers = wire_headers(answer, request_id=request.id)
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    body = b"" if request.scope["method"] == "HEAD" else answer.body
    if request.incoming.unread:
        # The client has its answer before the rest of what it sends is read and dropped; but for the last
        # byte, since a server may close the connection as soon as the answer is complete.
        await send({"type": "http.response.body", "body": body[:-1], "more_body": True})
        await request.incoming.drain()
        body = body[-1:]
    await send({"type": "http.response.body", "body": body, "more_body": False})

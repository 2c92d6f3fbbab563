"""A request that has arrived, and how it gets its answer: whole, or as it comes. Two ways, and never both."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import structlog

from gateway.asgi import Answer, Receive, Scope, Send
from gateway.body import Incoming
from gateway.relay import relay
from gateway.request import Head
from gateway.response import wire_headers
from gateway.routes import Destination
from quarterhour.body import Claim
from quarterhour.outcome import Response

__all__ = ["Arrival", "log_cut", "relay_response", "send_answer"]

log = structlog.get_logger()


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
    key: str | None = None  # of a background invocation, if it has one
    digest: "hashlib._Hash | None" = None  # of the body, if there is a key
    unwanted: list[Claim] = field(default_factory=list)  # large bodies to be removed in the end


async def send_answer(answer: Answer, request: Arrival) -> None:
    """Send a whole answer."""
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


async def relay_response(request: Arrival, head: Response, chunks: AsyncIterator[bytes]) -> None:
    """Send a response as it comes. One that breaks off is left without an end: the server cuts it."""
    request.begun = True
    broken = await relay(
        head,
        chunks,
        method=request.scope["method"],
        request_id=request.id,
        receive=request.receive,
        send=request.send,
    )
    if broken is not None:
        log_cut(request, str(broken))


def log_cut(request: Arrival, why: str) -> None:
    """Tell the operator what the client can only guess."""
    log.warning("response_cut", invocation=request.id, why=why)

"""Relaying: a response that comes bit by bit goes to the client as it comes, at the client's pace.

It never buffers: the next piece is asked for once the server has taken the last one.
"""

import asyncio

from gateway.asgi import Receive, Send
from gateway.response import head_headers
from quarterhour.broker.port import Stream
from quarterhour.errors import BrokerError

__all__ = ["relay"]


async def relay(
    stream: Stream, *, method: str, request_id: str, receive: Receive, send: Send
) -> BrokerError | None:
    """Send the response, whose body must not end cleanly if this returns an error: it is not whole."""
    head = stream.head
    headers = head_headers(head, request_id=request_id)
    await send({"type": "http.response.start", "status": head.status, "headers": headers})
    bodiless = method == "HEAD" or head.status in {204, 304}
    broken: BrokerError | None = None
    async with asyncio.TaskGroup() as tasks:
        copying = tasks.create_task(_copy(stream, send, bodiless=bodiless))
        watching = tasks.create_task(_client_gone(receive))
        await asyncio.wait((copying, watching), return_when=asyncio.FIRST_COMPLETED)
        if copying.done():
            broken = copying.result()
        for task in (copying, watching):
            task.cancel()
    if broken is None:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    return broken


async def _copy(stream: Stream, send: Send, *, bodiless: bool) -> BrokerError | None:
    try:
        async for chunk in stream.chunks:
            if not bodiless:  # the function runs to its end all the same, as it does for any request
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except BrokerError as error:
        return error
    return None


async def _client_gone(receive: Receive) -> None:
    """Return when there is nobody left to send to."""
    while (await receive())["type"] == "http.request":
        continue  # a server may tell of the end of the request's body more than once

"""Relaying: a response that comes bit by bit, or is large, goes to the client at the client's pace.

It never buffers: the next piece is asked for once the server has taken the last one.
"""

import asyncio
from collections.abc import AsyncIterator

from gateway.asgi import Receive, Send
from gateway.response import head_headers
from quarterhour.errors import BrokerError, StreamClosed
from quarterhour.outcome import Response

__all__ = ["relay"]

SILENCE_S = 120.0  # a client that takes nothing for so long is given up


async def relay(
    head: Response,
    chunks: AsyncIterator[bytes],
    *,
    method: str,
    request_id: str,
    receive: Receive,
    send: Send,
) -> BrokerError | None:
    """Send the response, whose body must not end cleanly if this returns an error: it is not whole."""
    headers = head_headers(head, request_id=request_id)
    await send({"type": "http.response.start", "status": head.status, "headers": headers})
    bodiless = method == "HEAD" or head.status in {204, 304}
    broken: BrokerError | None = None
    if bodiless and head.claim is not None:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return None
    async with asyncio.TaskGroup() as tasks:
        copying = tasks.create_task(_copy(chunks, send, bodiless=bodiless))
        watching = tasks.create_task(_client_gone(receive))
        await asyncio.wait((copying, watching), return_when=asyncio.FIRST_COMPLETED)
        if copying.done():
            broken = copying.result()
        for task in (copying, watching):
            task.cancel()
    if broken is None:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    return broken


async def _copy(chunks: AsyncIterator[bytes], send: Send, *, bodiless: bool) -> BrokerError | None:
    try:
        async for chunk in chunks:
            if not bodiless:  # the function runs to its end all the same, as it does for any request
                async with asyncio.timeout(SILENCE_S):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except BrokerError as error:
        return error
    except TimeoutError:
        message = f"The client took nothing of the response for {SILENCE_S:g} s."
        return StreamClosed(message)
    return None


async def _client_gone(receive: Receive) -> None:
    """Return when there is nobody left to send to."""
    while (await receive())["type"] == "http.request":
        continue  # a server may tell of the end of the request's body more than once

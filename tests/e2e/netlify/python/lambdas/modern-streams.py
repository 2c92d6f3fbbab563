import asyncio
from urllib.parse import parse_qs

from shared.shown import gate


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    (name,) = parse_qs(scope["query_string"].decode())["gate"]
    headers = [(b"content-type", b"text/x-pieces")]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    await send({"type": "http.response.body", "body": b"one", "more_body": True})
    await asyncio.to_thread(gate, name)
    await send({"type": "http.response.body", "body": b"two"})

"""Applications as functions: a module's `app`, ASGI or WSGI, is called with the request.

Standard library only, since it runs under the interpreter of the function. At a function's default
address the application is mounted there; at a path of the function's own it sees the whole path.
An application is not told when its worker ends: that may be at any time, and without notice.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import unquote, unquote_to_bytes
from wsgiref.handlers import BaseHandler

__all__ = ["AppError", "Asgi", "call_wsgi", "is_asgi"]

LIFESPAN_S = 30.0
PREFIX = "/.netlify/functions/"

Message = MutableMapping[str, Any]


class AppError(Exception):
    """The application does not keep to its interface."""


def is_asgi(app: Any) -> bool:
    """Whether an application is ASGI rather than WSGI: it is asynchronous, or takes three arguments."""
    call = getattr(app, "__call__", None)  # noqa: B004 - what it is made of, not whether it is
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(call):
        return True
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return False
    return sum(each.default is each.empty and each.kind < each.VAR_POSITIONAL for each in parameters) == 3


def _mount(header: dict[str, Any]) -> str:
    """The part of the path below which the application lies."""
    mount = PREFIX + header["function"]
    return mount if header["path"].startswith(mount) else ""


def _server(header: dict[str, Any]) -> tuple[str, int]:
    """Host and port, as the client named them."""
    host = next((value for name, value in header["headers"] if name == "host"), "localhost")
    name, colon, port = host.rpartition(":")
    if colon and port.isdecimal():
        return name, int(port)
    return host, 443 if header["scheme"] == "https" else 80


class Asgi:
    """An ASGI application and its lifespan. `outgoing` is an `Outgoing` of `results.py`."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app
        self._state: dict[str, Any] = {}
        self._lifespan: asyncio.Task[None] | None = None
        self._failure: str | None = None

    async def call(self, header: dict[str, Any], body: bytes | None, outgoing: Any) -> None:
        """Have the application answer one request."""
        if self._lifespan is None:
            await self._start()
        if self._failure is not None:
            raise AppError(self._failure)
        exchange = _Exchange(body or b"", outgoing)
        await self._app(self._scope(header), exchange.receive, exchange.send)
        if not exchange.ended:
            message = "The application returned without having sent a whole response."
            raise AppError(message)

    def _scope(self, header: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": header["method"],
            "scheme": header["scheme"],
            "path": unquote(header["path"]),
            "raw_path": header["path"].encode("latin-1"),
            "query_string": header["query"].encode("latin-1"),
            "root_path": _mount(header),
            "headers": [
                (name.encode("latin-1"), value.encode("latin-1")) for name, value in header["headers"]
            ],
            "client": (header["client"], 0),
            "server": _server(header),
            "state": self._state.copy(),
        }

    async def _start(self) -> None:
        """Run the startup of its lifespan, if it has one; it goes on living in the worker's event loop."""
        started = asyncio.Event()
        asked = False

        async def receive() -> Message:
            nonlocal asked
            if asked:
                await asyncio.Event().wait()  # the shutdown is never announced
            asked = True
            return {"type": "lifespan.startup"}

        async def send(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                self._failure = f"The application's startup failed: {message.get('message', '')}"
            started.set()

        async def live() -> None:
            try:
                await self._app(
                    {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self._state}, receive, send
                )
            except Exception:  # noqa: BLE001 - an application without a lifespan may say so by raising
                return
            finally:
                started.set()

        self._lifespan = asyncio.get_running_loop().create_task(live())
        await asyncio.wait_for(started.wait(), LIFESPAN_S)


class _Exchange:
    """The two channels of one request."""

    def __init__(self, body: bytes, outgoing: Any) -> None:
        self._body: bytes | None = body
        self._outgoing = outgoing
        self._start: Message | None = None
        self._over = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether the response is complete."""
        return self._over.is_set()

    async def receive(self) -> Message:
        """The request's body; then nothing until the response is complete."""
        if self._body is None:
            await self._over.wait()
            return {"type": "http.disconnect"}
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """Pass on what the application sends."""
        if message["type"] == "http.response.start" and self._start is None:
            self._start = message
        elif message["type"] == "http.response.body" and self._start is not None and not self.ended:
            self._send_body(message.get("body", b""), more=message.get("more_body", False))
            await asyncio.sleep(0)  # other tasks of the application have their turn
        else:
            text = f"The application sent {message['type']!r} where it has no place."
            raise AppError(text)

    def _send_body(self, body: bytes, *, more: bool) -> None:
        if not self._outgoing.begun:
            start = self._start or {}
            headers = [
                (bytes(name).decode("latin-1"), bytes(value).decode("latin-1"))
                for name, value in start.get("headers", ())
            ]
            self._outgoing.begin(_head(start["status"], headers), whole=not more or _has_length(headers))
        self._outgoing.send(bytes(body))
        if not more:
            self._over.set()


def call_wsgi(
    app: Callable[..., Iterable[bytes]], header: dict[str, Any], body: bytes | None, outgoing: Any
) -> None:
    """Have a WSGI application answer one request."""
    _Wsgi(header, body or b"", outgoing).run(app)


class _Wsgi(BaseHandler):
    """The standard library's handler knows the protocol; here is where things come from and go to."""

    environ: dict[str, Any]
    headers: Any
    status: str | None

    wsgi_multithread = False
    wsgi_multiprocess = True
    os_environ: dict[str, str] = {}  # noqa: RUF012 - the base's; functions see their own in os.environ

    def __init__(self, header: dict[str, Any], body: bytes, outgoing: Any) -> None:
        self._request = header
        self._body = body
        self._outgoing = outgoing

    def add_cgi_vars(self) -> None:
        """The request, in the words of CGI (PEP 3333)."""
        request = self._request
        mount = _mount(request)
        server, port = _server(request)
        self.environ.update(
            REQUEST_METHOD=request["method"],
            SCRIPT_NAME=mount,
            PATH_INFO=unquote_to_bytes(request["path"][len(mount) :]).decode("latin-1"),
            QUERY_STRING=request["query"],
            SERVER_NAME=server,
            SERVER_PORT=str(port),
            SERVER_PROTOCOL="HTTP/1.1",
            REMOTE_ADDR=request["client"],
            CONTENT_LENGTH=str(len(self._body)),
        )
        for name, value in request["headers"]:
            key = name.upper().replace("-", "_")
            if key == "CONTENT_TYPE":
                self.environ[key] = value
            elif key != "CONTENT_LENGTH":
                joint = "; " if key == "COOKIE" else ","
                before = self.environ.get(f"HTTP_{key}")
                self.environ[f"HTTP_{key}"] = value if before is None else before + joint + value

    def get_scheme(self) -> str:
        """Of the request's address."""
        return str(self._request["scheme"])

    def get_stdin(self) -> Any:
        """The request's body."""
        return io.BytesIO(self._body)

    def get_stderr(self) -> Any:
        """Where the application writes its errors."""
        return sys.stderr

    def finish_content(self) -> None:
        """End a response without a body."""
        if self.status is None:
            message = "The application returned without having called start_response."
            raise AppError(message)
        super().finish_content()

    def send_headers(self) -> None:
        """Begin the response."""
        self.cleanup_headers()  # the length of a body in one piece is known
        self.headers_sent = True
        headers = [(name.lower(), value) for name, value in self.headers.items()] if self.headers else []
        status = (self.status or "").partition(" ")[0]
        self._outgoing.begin(_head(status, headers), whole=_has_length(headers))

    def _write(self, data: bytes) -> None:
        self._outgoing.send(data)

    def _flush(self) -> None:
        """Nothing is held back."""

    def handle_error(self) -> None:
        """An error is the attempt's, not a page of the handler's."""
        raise  # noqa: PLE0704 - called while the error is handled


def _head(status: Any, headers: Iterable[tuple[str, str]]) -> dict[str, Any]:
    lists: dict[str, list[str]] = {}
    for name, value in headers:
        lists.setdefault(name.lower(), []).append(value)
    return {"statusCode": status, "headers": None, "multiValueHeaders": lists}


def _has_length(headers: Iterable[tuple[str, str]]) -> bool:
    return any(name.lower() == "content-length" for name, _ in headers)

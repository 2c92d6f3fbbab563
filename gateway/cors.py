"""CORS: web pages of other origins that may call functions and the API. A layer, and only there if it is set.

Pages send what they have to say in headers, an API key for one: cookies are never allowed along. A function
that speaks of CORS itself is left alone. (https://fetch.spec.whatwg.org/#http-cors-protocol)
"""

from collections.abc import Collection

from gateway.asgi import Answer, App, HeaderPairs, Message, Receive, Scope, Send, values_of
from gateway.response import wire_headers
from quarterhour.route import is_gateways

__all__ = ["Cors"]

ALLOW_ORIGIN = b"access-control-allow-origin"
_METHOD = b"access-control-request-method"
_HEADERS = b"access-control-request-headers"
_PREFLIGHT_KEPT_S = 600
_EXPOSED = b"location, retry-after, x-nf-request-id"


class Cors:
    """An ASGI application: `inner`, whose answers pages of these origins may read. `*` is all origins."""

    def __init__(self, inner: App, origins: Collection[str]) -> None:
        self._inner = inner
        self._all = "*" in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not _is_shared(scope["path"]):
            await self._inner(scope, receive, send)
            return
        if _is_preflight(scope):
            # Whether or not there is such a function: it has no key with it, and must not learn that.
            answer = Answer(status=204, headers=self._preflight_headers(scope))
            headers = wire_headers(answer, request_id=None)
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        added = self._answer_headers(scope)

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                if not any(name == ALLOW_ORIGIN for name, _ in headers):
                    message = {**message, "headers": [*headers, *added]}
            await send(message)

        await self._inner(scope, receive, send_more)

    def _allowed(self, scope: Scope) -> bytes | None:
        """What `Access-Control-Allow-Origin` has to say to the page that asks, None for nothing."""
        origin = next(iter(values_of(scope, b"origin")), None)
        if self._all and origin is not None:
            return b"*"
        return origin if origin in self._origins else None

    def _answer_headers(self, scope: Scope) -> HeaderPairs:
        vary = () if self._all else ((b"vary", b"origin"),)
        allowed = self._allowed(scope)
        if allowed is None:
            return vary
        return ((ALLOW_ORIGIN, allowed), (b"access-control-expose-headers", _EXPOSED), *vary)

    def _preflight_headers(self, scope: Scope) -> HeaderPairs:
        vary = (b"vary", b", ".join((b"origin", _METHOD, _HEADERS)))
        allowed = self._allowed(scope)
        if allowed is None:
            return (vary,)
        return (
            (ALLOW_ORIGIN, allowed),
            (b"access-control-allow-methods", b", ".join(values_of(scope, _METHOD))),
            (b"access-control-allow-headers", b", ".join(values_of(scope, _HEADERS))),
            (b"access-control-max-age", b"%d" % _PREFLIGHT_KEPT_S),
            vary,
        )


def _is_shared(path: str) -> bool:
    """Whether pages may be let in: at functions and the API."""
    return not is_gateways(path) or path.startswith("/v1/")


def _is_preflight(scope: Scope) -> bool:
    """Whether a browser asks if a page may send a request."""
    return scope["method"] == "OPTIONS" and all(values_of(scope, name) for name in (b"origin", _METHOD))

"""CORS: web pages of other origins that may call functions and the API.

Pages send what they have to say in headers, an API key for one: cookies are never allowed along. A function
that speaks of CORS itself is left alone. Paths are asked about here as the edge has read them.
(https://fetch.spec.whatwg.org/#http-cors-protocol)
"""

from collections.abc import Collection

from gateway.asgi import Answer, HeaderPairs, Message, Scope, Send, values_of
from quarterhour.route import is_gateways

__all__ = ["Cors"]

ALLOW_ORIGIN = b"access-control-allow-origin"
_METHOD = b"access-control-request-method"
_HEADERS = b"access-control-request-headers"
_PREFLIGHT_KEPT_S = 600
_EXPOSED = b"location, retry-after, x-nf-request-id"


class Cors:
    """What pages of these origins are told; `*` is all origins, and without any nobody is told anything."""

    def __init__(self, origins: Collection[str]) -> None:
        self._any = bool(origins)
        self._all = "*" in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    def preflight(self, scope: Scope) -> Answer | None:
        """The answer to a browser that asks whether a page may send a request; None if it does not ask that.

        Whether or not there is such a function: the question has no key with it, and must not learn that.
        """
        if not _is_preflight(scope) or not self._is_shared(scope["path"]):
            return None
        return Answer(status=204, headers=self._preflight_headers(scope))

    def readable(self, scope: Scope, send: Send) -> Send:
        """`send`, so that pages may read the answer to this request, if they may."""
        if not self._is_shared(scope["path"]) or _is_preflight(scope):
            return send
        added = self._answer_headers(scope)

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                if not any(name == ALLOW_ORIGIN for name, _ in headers):
                    message = {**message, "headers": [*headers, *added]}
            await send(message)

        return send_more

    def _is_shared(self, path: str) -> bool:
        """Whether pages may be let in: at functions and the API."""
        return self._any and (not is_gateways(path) or path.startswith("/v1/"))

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


def _is_preflight(scope: Scope) -> bool:
    """Whether a browser asks if a page may send a request."""
    return scope["method"] == "OPTIONS" and all(values_of(scope, name) for name in (b"origin", _METHOD))

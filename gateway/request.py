"""A request becomes an invocation: its header block is read once, and what it claims is checked.

Pure: no I/O, no clock. It never decodes a path, a query or a body; the runtimes do that.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from gateway.asgi import Scope
from gateway.problems import Code, Problem
from quarterhour.function import PREFIX as DEFAULT_PREFIX
from quarterhour.invocation import Request
from quarterhour.keys import PREFIX as PREFIX_OF_KEYS
from quarterhour.options import Network

__all__ = [
    "Head",
    "bad_head",
    "client_of",
    "function_name",
    "is_invocation",
    "origin_form",
    "read_head",
    "request_of",
]

PREFIX = DEFAULT_PREFIX.encode()
# What follows a function's name; everything else up to there belongs to it.
_NAME = re.compile(rb"/([A-Za-z0-9_-]{1,128})(?:/|%2[Ff]|\Z)")
_ABSOLUTE = re.compile(rb"https?://[^/?#]+", re.IGNORECASE)
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_LINE_BYTES = 4  # ": " and the end of the line
_FORWARDED_MAX = 100
_METHOD_LENGTH_MAX = 64

# A name that may stand in an address, or an address (RFC 3986, 3.2.2), and maybe a port.
_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63}){0,126}\.?)(?::[0-9]{0,5})?"
)
_VERSIONS = frozenset({"1.0", "1.1"})

# Said by the gateway alone, or by Netlify's, so that functions believe them: a client's copies are dropped.
_NOT_A_CLIENTS = frozenset(
    {
        b"client-ip",
        b"x-nf-account-id",
        b"x-nf-client-connection-ip",
        b"x-nf-deploy-context",
        b"x-nf-deploy-id",
        b"x-nf-event",
        b"x-nf-geo",
        b"x-nf-request-id",
        b"x-nf-site-id",
        b"x-nf-site-info",
    }
)
# Where a key of ours may be, which no function gets to see; other credentials are for the function.
_MAY_HOLD_A_KEY = frozenset({b"authorization", b"x-api-key"})
_HELD_BACK = _NOT_A_CLIENTS | _MAY_HOLD_A_KEY
_KEY = re.compile(rb"(?:bearer[ \t]+)?(%b.*)" % PREFIX_OF_KEYS.encode(), re.IGNORECASE)
_NOTED = frozenset(
    {
        b"content-length",
        b"host",
        b"idempotency-key",
        b"traceparent",
        b"transfer-encoding",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-quarterhour-at",
        b"x-quarterhour-delay",
    }
)


@dataclass(slots=True, kw_only=True)
class Head:
    """What the header block says. Not frozen: it is filled in one pass over the headers.

    `pairs` are the headers for the function, names lower case; `size_bytes` counts the whole block.
    `idempotency` are the values of `Idempotency-Key`. `keys` are the different API keys of the request,
    or what looks like one; `pairs` are without them.
    """

    pairs: list[tuple[str, str]]
    size_bytes: int
    length: bytes | None = None
    encoding: bytes | None = None
    hosts: tuple[bytes, ...] = ()
    forwarded_for: list[bytes] | None = None
    forwarded_proto: bytes | None = None
    traceparent: bytes | None = None
    delay: tuple[bytes, ...] = ()
    at: tuple[bytes, ...] = ()
    idempotency: tuple[bytes, ...] = ()
    keys: tuple[bytes, ...] = ()

    @property
    def has_body(self) -> bool:
        """Whether the request announces a body, be it an empty one."""
        return self.length is not None or self.encoding is not None

    @property
    def trace(self) -> str | None:
        """The trace context (W3C `traceparent`), if it is one."""
        if self.traceparent is None or not _TRACEPARENT.fullmatch(self.traceparent):
            return None
        return self.traceparent.decode("ascii")


def read_head(scope: Scope) -> Head:
    """Everything that the gateway wants to know of the headers, in one pass."""
    pairs: list[tuple[str, str]] = []
    head = Head(pairs=pairs, size_bytes=len(scope["raw_path"]) + len(scope["query_string"]))
    size = head.size_bytes
    for name, value in scope["headers"]:
        size += len(name) + len(value) + _LINE_BYTES
        if name in _NOTED:
            _note(head, name, value)
        if name not in _HELD_BACK or (name in _MAY_HOLD_A_KEY and not _keep_key(head, value)):
            pairs.append((name.decode("latin-1"), value.decode("latin-1")))
    head.size_bytes = size
    return head


def _note(head: Head, name: bytes, value: bytes) -> None:
    if name == b"host":
        head.hosts = (*head.hosts, value)
    elif name == b"content-length":
        head.length = value
    elif name == b"transfer-encoding":
        head.encoding = value
    elif name == b"traceparent":
        head.traceparent = value
    elif name == b"x-forwarded-proto":
        head.forwarded_proto = value
    elif name == b"x-quarterhour-delay":
        head.delay = (*head.delay, value)
    elif name == b"x-quarterhour-at":
        head.at = (*head.at, value)
    elif name == b"idempotency-key":
        head.idempotency = (*head.idempotency, value)
    else:
        head.forwarded_for = [*(head.forwarded_for or ()), value]


def _keep_key(head: Head, value: bytes) -> bool:
    found = _KEY.match(value.strip())
    if found is not None and found[1] not in head.keys:
        head.keys = (*head.keys, found[1])
    return found is not None


def bad_head(head: Head, scope: Scope, raw_path: bytes, header_bytes_max: int) -> Problem | None:
    """What is wrong with request line and headers, whatever the server has let through."""
    if head.length is not None and head.encoding is not None:
        return Problem(
            code=Code.AMBIGUOUS_LENGTH,
            detail="The request has both Content-Length and Transfer-Encoding; send one of them.",
        )
    if head.size_bytes > header_bytes_max:
        return Problem(
            code=Code.HEADERS_TOO_LARGE,
            detail=f"Request line and headers have {head.size_bytes} bytes; {header_bytes_max} are allowed.",
        )
    if head.encoding is not None and head.encoding.strip().lower() != b"chunked":
        return Problem(
            code=Code.UNKNOWN_TRANSFER_ENCODING,
            detail="The gateway understands no Transfer-Encoding but chunked.",
        )
    if scope["method"] == "CONNECT":
        return Problem(code=Code.METHOD_NOT_ALLOWED, detail="The gateway is no proxy: there is no CONNECT.")
    why = _malformed(head, scope, raw_path)
    return Problem(code=Code.BAD_REQUEST, detail=why) if why else None


def _malformed(head: Head, scope: Scope, raw_path: bytes) -> str | None:
    version = scope["http_version"]
    if version not in _VERSIONS:
        return "This version of HTTP is none that the gateway speaks."
    if len(scope["method"]) > _METHOD_LENGTH_MAX:
        return "No method has such a long name."
    if head.length is not None and not head.length.isdigit():
        return "Content-Length must be a number of bytes."
    if head.encoding is not None and version == "1.0":
        return "HTTP/1.0 knows no Transfer-Encoding."
    if len(head.hosts) != 1 and (head.hosts or version == "1.1"):
        return "A request needs exactly one Host header."
    if head.hosts and not _HOST.fullmatch(head.hosts[0]):
        return "The Host header is no name or address of a host."
    if not raw_path.startswith(b"/") or b"#" in raw_path or b"#" in scope["query_string"]:
        return "What is asked for must be a path, which begins with a slash, and has no #."
    return None


def origin_form(raw_path: bytes) -> bytes:
    """The path of a request target that may name scheme and host as well, as proxies are sent it."""
    if raw_path.startswith(b"/"):
        return raw_path
    absolute = _ABSOLUTE.match(raw_path)
    return raw_path[absolute.end() :] or b"/" if absolute else raw_path


def is_invocation(raw_path: bytes) -> bool:
    """Whether the path is one at which functions live, be it that of a function or not."""
    return raw_path.startswith(PREFIX) and raw_path[len(PREFIX) :][:1] in {b"", b"/"}


def function_name(raw_path: bytes) -> str | None:
    """The function that a raw path names; None if what stands there is no name.

    The name is taken as it was sent: nothing is decoded, so that only a plain name can match.
    """
    match = _NAME.match(raw_path, len(PREFIX))
    return match[1].decode("ascii") if match else None


def request_of(
    scope: Scope,
    head: Head,
    raw_path: bytes,
    *,
    request_id: str,
    trusted: Sequence[Network],
    params: Mapping[str, str],
) -> Request:
    """The request for the function: verbatim, but for the headers that are the gateway's to set."""
    peer = scope.get("client")
    client: str = peer[0] if peer else ""
    scheme: str = scope["scheme"]
    if trusted and _is_trusted(client, tuple(trusted)):
        client = client_of(client, head.forwarded_for or (), trusted)
        if head.forwarded_proto in {b"http", b"https"}:
            scheme = head.forwarded_proto.decode("ascii")
    pairs = head.pairs
    pairs.append(("client-ip", client))
    pairs.append(("x-nf-client-connection-ip", client))
    pairs.append(("x-nf-request-id", request_id))
    return Request(
        method=scope["method"],
        path=raw_path.decode("latin-1"),
        query=scope["query_string"].decode("latin-1"),
        headers=tuple(pairs),
        client=client,
        scheme=scheme,
        params=params,
    )


def client_of(peer: str, forwarded_for: Sequence[bytes], trusted: Sequence[Network]) -> str:
    """The client's address behind proxies: the last one in X-Forwarded-For that is no trusted proxy.

    Read from the right, since everything left of what a trusted proxy added may be made up.
    """
    client = peer
    entries = b",".join(forwarded_for).split(b",")[-_FORWARDED_MAX:]
    for entry in reversed(entries):
        address = _address(entry.strip().decode("latin-1"))
        if address is None:
            break
        client = address
        if not _is_trusted(client, tuple(trusted)):
            break
    return client


def _address(text: str) -> str | None:
    """The plain address in an entry: some proxies add a port, and IPv6 then stands in brackets."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


@lru_cache(maxsize=1024)
def _is_trusted(address: str, trusted: tuple[Network, ...]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in trusted)

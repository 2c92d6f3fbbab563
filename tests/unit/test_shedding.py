"""What is refused before it is read is beyond all doubt one whole request to a function."""

import asyncio

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.directory import Functions
from gateway.metrics import Metrics
from gateway.pressure import Pressure
from gateway.shedding import Shedding, plain_request
from tests.process.http_corpus import FOUND, SEEDS, SMUGGLING

HEAD = b"POST /.netlify/functions/hello HTTP/1.1\r\nHost: localhost\r\n"
WITH_BODY = HEAD + b"content-length: 5\r\n\r\nabcde"

PIECES = st.sampled_from(
    [
        *(b"\r\n", b"\n", b" ", b":", b"\0", b"\x0b", b"\xff", b"a", b"5", b"-", b"%2f", b"?x=/"),
        *(
            b"Content-Length: 5\r\n",
            b"content-length:5\r\n",
            b"Content-Length : 5\r\n",
            b"Content-Length: 0\r\n",
        ),
        *(
            b"Transfer-Encoding: chunked\r\n",
            b"Host: b\r\n",
            b"Connection: close\r\n",
            b"Expect: 100-continue\r\n",
        ),
        *(b"abcde", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1", b"HTTP/1.0", b" folded\r\n"),
    ]
)


def as_h11_reads_it(data: bytes) -> tuple[str, bytes, bytes] | None:
    """Method, path and body if h11 finds just one request in it, all of it there; None otherwise."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    body = b""
    try:
        request = connection.next_event()
        if not isinstance(request, h11.Request):
            return None
        while isinstance(event := connection.next_event(), h11.Data):
            body += event.data
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.EndOfMessage) or connection.trailing_data[0]:
        return None
    return request.method.decode(), request.target.partition(b"?")[0], body


def is_beyond_doubt(data: bytes) -> bool:
    """What is taken for a request is one, and the same for the server that would have read it."""
    found = plain_request(data)
    read = as_h11_reads_it(data)
    return found is None or (read is not None and read[:2] == found)


@pytest.mark.parametrize(
    "data", [*SMUGGLING.values(), *FOUND, *SEEDS], ids=range(len([*SMUGGLING, *FOUND, *SEEDS]))
)
def test_no_two_servers_read_it_differently(data: bytes) -> None:
    assert is_beyond_doubt(data)


@given(st.integers(0, len(WITH_BODY)), st.integers(0, 3), st.lists(PIECES, max_size=3))
def test_whatever_is_changed_in_one_it_is_beyond_doubt(at: int, gone: int, pieces: list[bytes]) -> None:
    assert is_beyond_doubt(WITH_BODY[:at] + b"".join(pieces) + WITH_BODY[at + gone :])


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (HEAD + b"\r\n", ("POST", b"/.netlify/functions/hello")),
        (WITH_BODY, ("POST", b"/.netlify/functions/hello")),
        (HEAD + b"Content-Length: 0\r\n\r\n", ("POST", b"/.netlify/functions/hello")),
        (HEAD + b"Connection: Keep-Alive\r\n\r\n", ("POST", b"/.netlify/functions/hello")),
        (WITH_BODY.replace(b"POST", b"GET"), ("GET", b"/.netlify/functions/hello")),
        (WITH_BODY.replace(b"hello", b"a%2Fb?c=%20d"), ("POST", b"/.netlify/functions/a%2Fb")),
        (WITH_BODY.replace(b"/.netlify/functions/hello", b"/orders/7?x=1"), ("POST", b"/orders/7")),
    ],
)
def test_what_is_plain_is_found(data: bytes, found: tuple[str, bytes]) -> None:
    assert plain_request(data) == found
    assert is_beyond_doubt(data)


GATEWAYS = (
    *(b"/healthz", b"/readyz", b"/metrics", b"/v1/invocations/1", b"/openapi.json", b"/console/", b"/v1/"),
    *(
        b"/v1?x",
        b"/healthz?x=1",
        b"//healthz",
        b"/%68ealthz",
        b"/%2fhealthz",
        b"*",
        b"http://localhost/healthz",
    ),
)


@pytest.mark.parametrize("path", GATEWAYS)
def test_what_may_be_the_gateways_is_left_to_it(path: bytes) -> None:
    assert plain_request(WITH_BODY.replace(b"/.netlify/functions/hello", path)) is None


@pytest.mark.parametrize(
    "data",
    [
        WITH_BODY[:-1],
        WITH_BODY + b"f",
        WITH_BODY + WITH_BODY,
        HEAD,
        b"",
        WITH_BODY.replace(b"POST", b"HEAD"),  # whose answer has no body
        WITH_BODY.replace(b"HTTP/1.1", b"HTTP/1.0"),  # whose connection would be closed
        WITH_BODY.replace(b"content-length", b"connection: close\r\ncontent-length"),
        WITH_BODY.replace(b"content-length", b"CONNECTION: keep-alive, close\r\ncontent-length"),
        WITH_BODY.replace(
            b"content-length", b"Origin: https://a.example\r\ncontent-length"
        ),  # CORS has a say
        WITH_BODY.replace(b"content-length", b"Expect: 100-continue\r\ncontent-length"),
        WITH_BODY.replace(b"content-length", b"Upgrade: websocket\r\ncontent-length"),
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"content-length: 5\r\nContent-Length: 5\r\n\r\nabcde",
        HEAD + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
    ],
)
def test_what_is_not_plain_is_left_to_the_server(data: bytes) -> None:
    assert plain_request(data) is None


def test_a_gateway_that_ends_reads_every_request_so_that_its_connection_is_closed() -> None:
    pressure, stopping = Pressure(10, 0.02), asyncio.Event()
    shedding = Shedding(pressure, Functions(), Metrics(), stopping)
    assert not shedding.is_due
    pressure.is_overloaded = True
    assert shedding.is_due
    stopping.set()
    assert not shedding.is_due

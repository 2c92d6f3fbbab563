# ruff: noqa: E501
"""What somebody might send to get into the broker, into another's response, or at the memory: all of it is text."""

import gzip
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.aio.msg import Msg

from tests.process.raw_http import QUIET_S, Answer, talk
from tests.system import System

pytestmark = pytest.mark.asyncio(loop_scope="module")

PREFIX = "/.netlify/functions"
MIB = 1024 * 1024
SAYS = """
    import base64, json

    def handler(event, context):
        raw = base64.b64decode(event["body"]) if event["isBase64Encoded"] else (event["body"] or "").encode()
        if event["queryStringParameters"].get("size"):
            return {"statusCode": 200, "body": str(len(raw))}
        if event["queryStringParameters"].get("back"):
            return {"statusCode": 200, "headers": {"content-encoding": "gzip"}, "body": event["body"], "isBase64Encoded": True}
        said = json.loads(raw)
        if said.pop("stream", False):
            said["body"] = iter(["a", "b"])
        return said
"""
FUNCTIONS = {"says": SAYS, "quiet-background": "def handler(event, context):\n    return None\n"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    system: System
    ports: tuple[int, int]

    async def ask(self, data: bytes, *, quiet_s: float = 5.0) -> list[list[Answer]]:
        """The answers of both servers; who is asked to close closes long before the client is quiet."""
        return [await talk(port, data, quiet_s=quiet_s) for port in self.ports]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with System(tmp_path_factory.mktemp("attacks"), FUNCTIONS) as system:
        ports = [(await system.start_gateway("--server", server)).port for server in ("hypercorn", "granian")]
        await system.start_runner()
        yield Site(system=system, ports=(ports[0], ports[1]))
        for process in system.processes:
            assert "Traceback" not in process.log_path.read_text()


NAMES = ["a.b", ">", "*", "says.>", "says.*", "a%2eb", "a%2e%3e", "..%2fsays", "%3e", "says%0d%0aPUB%20x%201", "says%00", "$JS.API.INFO",
         "says%20x", "says%09", "quarterhour.call.x", "%c0%ae", "says;x", "says,x", "\x7f", "é"]  # fmt: skip
HEADERS = ["Nats-Msg-Id: x", "Nats-Rollup: all", "Nats-Schedule: @every 1s", "Status: 503", "X: a\rb", "X: a\\r\\nNats-TTL: 1s", "X: >",
           "Nats-Expected-Last-Sequence: 1", "X-Nf-Request-Id: >", "Traceparent: *"]  # fmt: skip
TOKEN = re.compile(r"[A-Za-z0-9_$-]+")


async def test_nothing_of_a_request_becomes_part_of_a_subject_or_a_header_of_nats(site: Site) -> None:
    seen: list[Msg] = []

    async def see(message: Msg) -> None:
        seen.append(message)

    client = await nats.connect(site.system.nats.url)
    await client.subscribe(">", cb=see)
    await client.flush()
    for name in NAMES:
        for path in (f"{PREFIX}/{name}", f"/v1/invocations/{name}", f"/v1/functions/{name}"):
            for answer, *_ in await site.ask(
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
            ):
                assert answer.status in {400, 404}, (path, answer)
    for header in HEADERS:
        request = f"POST {PREFIX}/quiet-background?a=%0d%0a.> HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n\r\n"
        for answer, *_ in await site.ask(request.encode()):
            assert answer.status in {202, 400}, header
    await client.flush()
    await client.close()
    assert any(".quiet-background." in message.subject for message in seen)
    for message in seen:
        assert all(TOKEN.fullmatch(token) for token in message.subject.split(".")), message.subject
        mine = {
            name
            for name in message.headers or {}
            if "\n" in name or (name.lower() in {"x", "status"} and b"503" in message.data)
        }
        assert not mine
        assert not {"Nats-Rollup", "Nats-Expected-Last-Sequence", "X", "Traceparent"} & set(
            message.headers or {}
        )
        assert (
            not message.subject.startswith("quarterhour.")
            or (message.headers or {}).get("Nats-Msg-Id") != "x"
        )


EVIL: list[dict[str, Any]] = [
    {"headers": {"a": "b\r\nSet-Cookie: c=d"}},
    {"headers": {"a": "b\nSet-Cookie: c=d"}},
    {"headers": {"a": "b\rSet-Cookie: c=d"}},
    {"headers": {"a": "b\0"}},
    {"headers": {"a\r\nSet-Cookie": "c=d"}},
    {"headers": {"a: b\r\nc": "d"}},
    {"headers": {"": "d"}},
    {"headers": {"a b": "d"}},
    {"multiValueHeaders": {"a": ["b", "c\r\n\r\nHTTP/1.1 200 OK"]}},
    {"headers": {"Content-Length": "0"}},
    {"headers": {"Content-Length": "99999"}},
    {"headers": {"Transfer-Encoding": "chunked"}},
    {"headers": {"Connection": "Content-Length, close"}},
    {"headers": {"Upgrade": "h2c", "Connection": "upgrade"}},
    {"multiValueHeaders": {"Content-Length": ["1", "2"], "transfer-encoding": ["chunked"]}},
    {
        "headers": {
            "Trailer": "x",
            "Keep-Alive": "timeout=1",
            "Date": "never",
            "X-Nf-Request-Id": "forged",
            "Server": "x",
        }
    },
    {"headers": {"a": "ÿĀ€😀"}},
    {"statusCode": 101},
    {"statusCode": "200 OK\r\na: b"},
    {"statusCode": 100},
]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_function_cannot_end_its_response_and_begin_another(site: Site, stream: bool) -> None:
    for said in EVIL:
        body = json.dumps({"statusCode": 200, "body": "body", **said, "stream": stream}).encode()
        post = f"POST {PREFIX}/says HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        for answers in await site.ask(
            post.encode() + body + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ):
            answer, after = answers
            assert after.json == {"status": "ok"}, said
            if answer.status == 500:
                assert answer.json["errorType"] == "InvalidResult", said
            else:
                assert (answer.status, answer.body) == (200, b"ab" if stream else b"body"), said
                assert not {"set-cookie", "trailer", "upgrade", "keep-alive"} & {
                    name for name, _ in answer.headers
                }
                assert len(answer.values("date")) == len(answer.values("x-nf-request-id")) == 1
                assert answer.values("date") != ["never"]
                assert answer.values("x-nf-request-id") != ["forged"]


async def test_what_is_compressed_stays_as_it_is(site: Site) -> None:
    bomb = gzip.compress(bytes(64 * MIB), 9)
    head = "Host: localhost\r\nContent-Encoding: gzip\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\nConnection: close\r\n"
    for query, expected in (("size=1", b"%d" % len(bomb)), ("back=1", bomb)):
        post = f"POST {PREFIX}/says?{query} HTTP/1.1\r\n{head}Content-Length: {len(bomb)}\r\n\r\n"
        for (answer,) in await site.ask(post.encode() + bomb):
            assert (answer.status, answer.body) == (200, expected)


async def test_what_is_too_long_is_refused(site: Site) -> None:
    ask = f"GET {PREFIX}/says HTTP/1.1\r\nHost: localhost\r\n"
    for data in (
        f"GET {PREFIX}/says?{'a' * 100_000} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        f"GET /{'a/' * 50_000} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        f"{'A' * 100_000} / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ask + "".join(f"X-{number}: a\r\n" for number in range(10_000)) + "\r\n",
        f"{ask}{'X' * 100_000}: a\r\n\r\n",
        f"{ask}X: {'a' * 10 * MIB}\r\n\r\n",
    ):
        for answers in await site.ask(data.encode(), quiet_s=QUIET_S):
            assert [answer.status for answer in answers] in ([431], [400], [414], []), data[:60]
    for (answer,) in await site.ask((ask + "Connection: close\r\n\r\n").encode()):
        assert answer.json["errorType"], "it is a call like any other, without what `says` wants"

"""Input that is wrong at the level of HTTP: each gets a clear answer, which the client also sees."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.body import BodyLimits
from quarterhour.settings import Server
from tests.process.gateway_rig import PREFIX, Rig, connected, function, json_of, open_rig, read_answer

MIB = 1024 * 1024
LIMIT = 64 * 1024


@pytest.fixture(params=["hypercorn", "granian"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with open_rig(request.param, request_bytes_max=LIMIT) as rig:
        yield rig


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


PATHS = [f"{PREFIX}/hello", f"{PREFIX}/missing", "/v1/functions", "/nothing"]
BOTH_LENGTHS = [
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
]


@pytest.mark.parametrize("lengths", BOTH_LENGTHS)
@pytest.mark.parametrize("path", PATHS)
async def test_two_lengths_are_400(path: str, lengths: str) -> None:
    async with open_rig("hypercorn") as rig:
        data = f"POST {path} HTTP/1.1\r\nHost: x\r\n{lengths}\r\n0\r\n\r\n".encode()
        answer = await rig.raw(data)
        assert status_of(answer) == 400
        assert json_of(answer)["code"] == "ambiguous_length"
        assert b"connection: close" in answer.lower()


@pytest.mark.parametrize("lengths", BOTH_LENGTHS[:2])
async def test_granian_drops_the_second_length_and_closes_the_connection(lengths: str) -> None:
    # Its HTTP parser drops Content-Length before an application can see it, reads the body by its chunks
    # alone and closes the connection, which RFC 9112 (6.1) allows: nothing can be smuggled behind it.
    async with open_rig("granian") as rig:
        smuggled = f"GET {PREFIX}/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
        data = f"POST {PREFIX}/hello HTTP/1.1\r\nHost: x\r\n{lengths}\r\n0\r\n\r\n{smuggled}".encode()
        async with connected(rig) as (reader, writer):
            writer.write(data)
            everything = await asyncio.wait_for(reader.read(), 30)
        assert everything.count(b"HTTP/1.1 ") == 1
        assert b"connection: close" in everything.lower()


@pytest.mark.parametrize("path", PATHS)
async def test_a_header_block_past_the_limit_is_431(rig: Rig, path: str) -> None:
    def request(size: int) -> bytes:
        start = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n".encode()
        # Counted: path, each header's name and value, and four bytes for each.
        filler = size - len(path) - len("host") - len("localhost") - 4 - len("x-filler") - 4
        return start + b"X-Filler: " + b"a" * filler + b"\r\n\r\n"

    assert status_of(await rig.raw(request(65_536))) in {200, 404}
    answer = await rig.raw(request(65_537))
    assert status_of(answer) == 431
    assert json_of(answer)["code"] == "headers_too_large"


async def test_many_headers_past_the_limit_are_431(rig: Rig) -> None:
    headers = b"".join(b"X-%02d: %s\r\n" % (number, b"a" * 1000) for number in range(80))
    answer = await rig.raw(f"GET {PREFIX}/hello HTTP/1.1\r\nHost: x\r\n".encode() + headers + b"\r\n")
    assert status_of(answer) == 431


async def test_a_huge_header_block_is_431_too(rig: Rig) -> None:
    data = f"GET {PREFIX}/hello HTTP/1.1\r\nHost: x\r\nX-Filler: ".encode() + b"a" * MIB + b"\r\n\r\n"
    assert status_of(await rig.raw(data)) == 431


@pytest.mark.parametrize(
    "data",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTQ/1.1\r\nHost: x\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nNo colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad name: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\n",
    ],
)
async def test_malformed_http_is_400(rig: Rig, data: bytes) -> None:
    assert status_of(await rig.raw(data)) == 400


async def test_an_unknown_transfer_encoding_is_501(rig: Rig) -> None:
    data = f"POST {PREFIX}/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
    assert status_of(await rig.raw(data.encode())) == 501


async def test_a_broken_chunk_is_400(rig: Rig) -> None:
    data = f"POST {PREFIX}/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc"
    assert status_of(await rig.raw(data.encode())) == 400


async def test_half_a_body_is_400_and_runs_nothing(rig: Rig) -> None:
    await rig.announce(function("other"))
    runner = await rig.runner("runner-2", "other")
    for name in ("other", "hello-background"):
        data = f"POST {PREFIX}/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf"
        assert status_of(await rig.raw(data.encode(), finish=True)) == 400
    assert not rig.broker.store.queues.get("hello-background")
    assert runner.taken == []
    for name, status in (("other", 200), ("hello-background", 202)):  # whole ones do run
        assert (await rig.client.post(f"{PREFIX}/{name}", content=b"whole")).status_code == status
    assert rig.broker.store.queues.get("hello-background")
    assert len(runner.taken) == 1


@pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("name", ["hello", "hello-background"])
@pytest.mark.parametrize("server", ["hypercorn", "granian"])
async def test_a_body_that_never_comes_is_408(server: Server, framing: str, name: str) -> None:
    data = f"POST {PREFIX}/{name} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"
    async with open_rig(server, body=BodyLimits(silence_s=1.0)) as rig:
        answer = await rig.raw(data.encode())
    assert status_of(answer) == 408
    assert json_of(answer)["code"] == "body_timeout"
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize("server", ["hypercorn", "granian"])
async def test_a_body_that_comes_slowly_but_steadily_is_read(server: Server) -> None:
    head = f"POST {PREFIX}/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n".encode()
    async with open_rig(server, body=BodyLimits(silence_s=1.0)) as rig:
        for _ in range(3):  # a machine that stalls pauses for too long itself, but not every time
            async with connected(rig) as (reader, writer):
                writer.write(head)
                for _ in range(10):  # two seconds in all, which is more than a pause may take
                    writer.write(b"x")
                    await asyncio.sleep(0.2)
                answer = await asyncio.wait_for(read_answer(reader), 30)
            if status_of(answer) != 408:
                break
        assert json_of(answer)["body"] == "x" * 10


def huge(path: str, size: int) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + b"x" * size


@pytest.mark.parametrize(
    ("path", "status"),
    [(f"{PREFIX}/hello", 413), (f"{PREFIX}/hello-background", 413), (f"{PREFIX}/missing", 404)],
)
async def test_a_client_that_sends_everything_first_sees_the_answer(rig: Rig, path: str, status: int) -> None:
    answer = await rig.raw(huge(path, 20 * MIB))
    assert status_of(answer) == status


async def test_a_chunked_body_far_past_the_limit_is_413_for_a_client_that_reads_last(rig: Rig) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    head = f"POST {PREFIX}/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    answer = await rig.raw(head + chunk * 200 + b"0\r\n\r\n")
    assert status_of(answer) == 413


@pytest.mark.parametrize("server", ["hypercorn", "granian"])
async def test_the_answer_does_not_wait_for_the_rest_of_the_body(server: Server) -> None:
    head = f"POST {PREFIX}/hello HTTP/1.1\r\nHost: x\r\nContent-Length: {20 * MIB}\r\n\r\n"
    limits = BodyLimits(silence_s=60.0, drain_silence_s=60.0, drain_s=60.0)  # of any time that it would wait
    async with (
        open_rig(server, request_bytes_max=LIMIT, body=limits) as rig,
        connected(rig) as (reader, writer),
        asyncio.timeout(20),
    ):
        writer.write(head.encode())
        answer = await reader.readuntil(b'"code":"body_too_large"')
    assert status_of(answer) == 413


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not there: apt-get install curl")
@pytest.mark.parametrize("chunked", [False, True])
async def test_curl_sees_the_413(rig: Rig, chunked: bool, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"x" * 20 * MIB)
    address = f"http://127.0.0.1:{rig.port}{PREFIX}/hello-background"
    command = ["curl", "-sS", "--max-time", "30", "-w", "%{http_code}", "-o", "/dev/null"]
    command += ["--data-binary", f"@{body}", address]
    if chunked:
        command += ["-H", "Transfer-Encoding: chunked"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("413", 0), done.stderr


async def test_an_early_answer_to_a_small_body_leaves_the_connection_usable(rig: Rig) -> None:
    async with connected(rig) as (reader, writer):
        for _ in range(3):
            writer.write(huge(f"{PREFIX}/missing", 1000))
            assert status_of(await asyncio.wait_for(read_answer(reader), 30)) == 404
        writer.write(huge(f"{PREFIX}/hello", 10))
        assert json_of(await asyncio.wait_for(read_answer(reader), 30))["body"] == "x" * 10


async def test_requests_sent_at_once_are_answered_in_order(rig: Rig) -> None:
    paths = [f"{PREFIX}/hello/{number}" for number in range(5)]
    async with connected(rig) as (reader, writer):
        writer.write(b"".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths))
        got = [json_of(await asyncio.wait_for(read_answer(reader), 30))["path"] for _ in paths]
    assert got == paths


async def test_a_websocket_is_refused(rig: Rig) -> None:
    data = (
        f"GET {PREFIX}/hello HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert status_of(await rig.raw(data.encode())) in {200, 403}  # Granian passes over the upgrade


async def test_a_client_that_goes_away_while_its_body_is_dropped_leaves_no_trace(rig: Rig) -> None:
    for _ in range(5):
        async with connected(rig) as (reader, writer):
            writer.write(
                f"POST {PREFIX}/hello HTTP/1.1\r\nHost: x\r\nContent-Length: {20 * MIB}\r\n\r\n".encode()
            )
            writer.write(b"x" * MIB)
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            writer.transport.abort()
    assert (await rig.client.get(f"{PREFIX}/hello")).status_code == 200

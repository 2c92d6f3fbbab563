"""Bodies that the runner never holds whole: behind an envelope into the worker, and out of a large frame."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quarterhour.body import BodyKind, Claim
from quarterhour.errors import BodyLost, BrokerUnavailable
from quarterhour.function import Mode
from quarterhour.invocation import Request
from quarterhour.outcome import Crashed, Failed, Succeeded, TimedOut
from quarterhour.record import RESULT_BYTES_MAX
from runner.sandbox.job import AttemptLost, Rest
from tests.process.sandboxes import RAW, Bench, HourLater, open_bench, settings

KIB = 1024
TEXT = Request(method="POST", path="/", headers=(("content-type", "text/plain"),))
ECHO = "def handler(event, context): return {'statusCode': 200, 'body': event['body']}"


async def pieces_of(body: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 100_000):
        yield body[start : start + 100_000]
    if error is not None:
        raise error


class Kept:
    """Where bodies go."""

    def __init__(self, error: Exception | None = None) -> None:
        self.body: bytes | None = None
        self.parts_max = 0
        self._error = error

    async def __call__(self, chunks: AsyncIterator[bytes]) -> Claim:
        found = b""
        async for chunk in chunks:
            if self._error is not None:
                raise self._error
            found += chunk
        self.body = found
        return Claim(kind=BodyKind.RESPONSE, id="id", size_bytes=len(found), pieces=1)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path, settings(held_bytes_max=64 * KIB)) as bench:
        yield bench


def rest(body: bytes, error: Exception | None = None, missing: int = 0) -> Rest:
    return Rest(size_bytes=len(body) + missing, read=lambda: pieces_of(body, error))


async def test_a_body_behind_the_envelope_and_one_out_of_the_frame(bench: Bench) -> None:
    code = bench.function(ECHO)
    for size in (1, 900 * KIB, 70 * KIB, 3):
        text, kept = b"ab" * (size // 2) + b"c", Kept()
        finished = await bench.run(code, rest=rest(text), request=TEXT, body=b"", keep=kept)
        assert isinstance(finished.outcome, Succeeded), finished
        response = finished.outcome.response
        assert text == (response.body if response.claim is None else kept.body)
        assert (response.claim is None) == (len(text) < 64 * KIB)
    assert len(bench.sandbox._workers) == 1  # the same worker did it all


async def test_a_body_that_is_lost(bench: Bench) -> None:
    error = BodyLost("It is gone.")
    finished = await bench.run(ECHO, rest=rest(b"x" * 300_000, error, missing=1), body=b"")
    assert isinstance(finished.outcome, Failed)
    assert (finished.outcome.error.type, finished.outcome.retry) == ("BodyLost", False)


async def test_a_body_that_cannot_be_read_now_costs_no_attempt(bench: Bench) -> None:
    with pytest.raises(AttemptLost) as lost:
        await bench.run(ECHO, rest=rest(b"x" * 300_000, BrokerUnavailable("Away."), missing=1), body=b"")
    assert lost.value.reason == "body"


async def test_a_body_that_does_not_come_ends_at_the_limit(bench: Bench) -> None:
    finished = await bench.run(ECHO, rest=rest(b"x" * 300_000, missing=1), body=b"", limit_s=0.5)
    assert finished.outcome == TimedOut(limit_s=0.5)


async def test_a_response_that_cannot_be_kept(bench: Bench) -> None:
    source = "def handler(event, context): return {'statusCode': 200, 'body': 'x' * 900_000}"
    finished = await bench.run(source, keep=Kept(BrokerUnavailable("Away.")))
    assert isinstance(finished.outcome, Failed)
    assert finished.outcome.error.type == "ResponseLost"


async def test_a_function_is_not_late_if_only_keeping_its_response_took_long(bench: Bench) -> None:
    async def keep(chunks: AsyncIterator[bytes]) -> Claim:
        claim = await Kept()(chunks)
        bench.sandbox.clock = HourLater()
        return claim

    source = "def handler(event, context): return {'statusCode': 200, 'body': 'x' * 900_000}"
    assert isinstance((await bench.run(source, keep=keep)).outcome, Succeeded)


async def test_a_large_response_that_is_none(bench: Bench) -> None:
    kept = Kept()
    source = "def handler(event, context): return {'statusCode': 99, 'body': 'x' * 900_000}"
    finished = await bench.run(source, keep=kept)
    assert isinstance(finished.outcome, Failed)
    assert (finished.outcome.error.type, kept.body) == ("InvalidResult", None)


async def test_a_worker_that_ends_in_the_middle_of_its_frame(bench: Bench) -> None:
    kept = Kept()
    source = (
        RAW
        + """
    header = {"kind": "returned", "shape": "object", "statusCode": 200, "body": "text"}
    send(frame(header, b"x" * 500_000)[:-1])
    os._exit(3)
"""
    )
    finished = await bench.run(source, keep=kept)
    assert (finished.outcome, kept.body) == (Crashed(exit_status=3), None)


async def test_of_a_value_for_the_record_only_the_beginning_is_held(bench: Bench) -> None:
    source = (
        RAW
        + """
    send(frame({"kind": "returned", "shape": "other"}, b"1" * 900_000))
    import time; time.sleep(60)
"""
    )
    finished = await bench.run(source, mode=Mode.BACKGROUND)
    assert isinstance(finished.outcome, Succeeded)
    assert finished.outcome.value == b"1" * RESULT_BYTES_MAX

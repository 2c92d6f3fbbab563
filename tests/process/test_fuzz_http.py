"""Malformed HTTP, row by row and by chance, to both servers: answered or cut off, never mistaken.

A request is smuggled when two parsers disagree on where one ends. There are two parsers here, so that is
what is looked for: neither may see a request that the other one has not seen, unless that one has refused.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fuzzing import LONG, SEED
from tests.process.gateway_rig import PREFIX, FakeRunner, Rig, function, open_rig
from tests.process.http_corpus import CANARY, FOUND, PATHS, PIECES, SEEDS, SMUGGLED, SMUGGLING
from tests.process.raw_http import QUIET_S, Answer, Garbled, talk

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("smuggled")]

AT_A_TIME = 50
BATCHES = 200 if LONG else 4


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[(), ("*",)], ids=["", "cors"])
async def rigs(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Rig, Rig]]:
    cors: tuple[str, ...] = request.param
    async with (
        open_rig("hypercorn", cors_origins=cors) as one,
        open_rig("granian", cors_origins=cors) as other,
    ):
        for rig in (one, other):
            await rig.announce(function("smuggled"))
        yield one, other


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def smuggled(rigs: tuple[Rig, Rig]) -> list[FakeRunner]:
    """Who would run what is smuggled."""
    return [await rig.runner("runner-2", "smuggled") for rig in rigs]


def seen(answers: list[Answer]) -> list[Any]:
    """The requests that the function has seen, as far as a client can tell: method, path, query, body."""
    echoes = [answer.json for answer in answers if answer.status == 200 and answer.body.startswith(b'{"id"')]
    # Hypercorn writes methods in upper case, whatever came.
    return [[echo["method"].upper(), echo["path"], echo["query"], echo["body"]] for echo in echoes]


def complaint(one: list[Answer], other: list[Answer], *, alike: bool) -> str | None:
    """What is wrong with the answers of the two servers to the same bytes."""
    for answers in (one, other):
        for answer in answers:
            if answer.status >= 500 and answer.status != 501:
                return f"a {answer.status}: {answer.body!r}"
            if answer.status < 200:
                return f"a switch to another protocol: {answer.status}"
    if not alike:
        return None
    few, many = sorted((one, other), key=lambda answers: len(seen(answers)))
    if seen(many)[: len(seen(few))] != seen(few):
        return f"different requests: {seen(one)} {seen(other)}"
    if len(seen(many)) > len(seen(few)) and not cut(few):
        return f"a request that only one has seen: {seen(one)} {seen(other)}"
    return None


def cut(answers: list[Answer]) -> bool:
    """Whether the connection ended by the server's will: refused, or not answered at all."""
    return not answers or answers[-1].status >= 400 or "close" in answers[-1].values("connection")


async def both(rigs: tuple[Rig, Rig], data: bytes, quiet_s: float = QUIET_S) -> str | None:
    try:
        one, other = await asyncio.gather(*(talk(rig.port, data, quiet_s=quiet_s) for rig in rigs))
    except (Garbled, TimeoutError) as error:
        return repr(error)
    # RFC 9112 (2.2) lets a server take a lone line feed as the end of a line; Hypercorn does.
    return complaint(one, other, alike=not re.search(rb"(?<!\r)\n", data))


async def patiently(rigs: tuple[Rig, Rig], data: bytes) -> str | None:
    """The same of a client that waits: one that falls silent too soon on a busy machine proves nothing."""
    return await both(rigs, data, quiet_s=1.0) and await both(rigs, data, quiet_s=5.0)


async def still_well(rigs: tuple[Rig, Rig]) -> None:
    for rig in rigs:
        (answer,) = await talk(rig.port, CANARY, quiet_s=10.0)  # it is closed after the answer
        assert answer.json["path"] == f"{PREFIX}/hello/canary"


def preflight(data: bytes) -> bytes:
    """The same from a browser that asks whether a page may send it."""
    asks = b"\\1Origin: https://x.example\\1Access-Control-Request-Method: POST\\1"
    return b"OPTIONS " + re.sub(rb"(?<=localhost)(\r?\n)", asks, data.partition(b" ")[2], count=1)


async def test_nothing_is_smuggled(rigs: tuple[Rig, Rig], smuggled: list[FakeRunner]) -> None:
    for rig, runner in zip(rigs, smuggled, strict=True):
        taken = len(runner.taken)
        cases = [*SMUGGLING.items()]
        cases += [(f"{case}, a preflight", preflight(data)) for case, data in SMUGGLING.items()]
        came = await asyncio.gather(*(talk(rig.port, data) for _, data in cases))
        for (case, _), answers in zip(cases, came, strict=True):
            assert complaint(answers, answers, alike=True) is None, case
            for _, path, _, body in seen(answers):
                # Either all of it is the body, or the server stopped reading before it.
                assert path == f"{PREFIX}/hello", case
                assert body in {None, "", "abcde", SMUGGLED.decode()}, case
        assert len(runner.taken) == taken


async def test_what_was_found_stays_mended(rigs: tuple[Rig, Rig]) -> None:
    sent = [data + CANARY for data in FOUND]
    wrong = await asyncio.gather(*(both(rigs, data) for data in sent))
    assert [await patiently(rigs, data) for data, found in zip(sent, wrong, strict=True) if found] == []


def mutated(chance: random.Random) -> bytes:
    """A request with a few mistakes."""
    data = chance.choice(SEEDS).replace(b"PATH", chance.choice(PATHS).encode())
    if chance.random() < 0.3:
        data += chance.choice(SEEDS).replace(b"PATH", f"{PREFIX}/hello/second".encode())
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        if chance.random() < 0.4:  # where lines begin, mistakes are the worst
            ends = [0, *(index + 1 for index, byte in enumerate(data) if byte == 10)]
            at = chance.choice(ends)
        match chance.randrange(4):
            case 0:
                data = data[:at] + chance.choice(PIECES) + data[at:]
            case 1:
                data = data[:at] + data[at + chance.randint(1, 8) :]
            case 2:
                data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
            case _:
                end = at + chance.randint(1, 30)
                data = data[:end] + data[at:end] + data[end:]
    return data


async def test_chance_finds_no_request_that_one_server_alone_sees(rigs: tuple[Rig, Rig]) -> None:
    chance = random.Random(SEED)
    found = []
    for _ in range(BATCHES):
        sent = [mutated(chance) + CANARY for _ in range(AT_A_TIME)]
        for data, wrong in zip(sent, await asyncio.gather(*(both(rigs, one) for one in sent)), strict=True):
            if wrong is not None and (wrong := await patiently(rigs, data)):
                found.append(f"{data!r}\n    {wrong}")
    assert not found, f"seed {SEED}\n" + "\n".join(found)
    await still_well(rigs)

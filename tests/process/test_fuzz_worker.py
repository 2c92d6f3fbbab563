"""A worker that writes anything but what it should: its attempt fails, and nobody else's."""

import asyncio
import json
import random
import socket
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from quarterhour.invocation import pack
from quarterhour.outcome import Crashed, Failed, Succeeded, TimedOut
from quarterhour.reply import decode_reply, encode_reply
from runner.sandbox.job import Code
from runner.sandbox.python.worker import START, Worker
from tests.fuzzing import BUDGET, LONG, SEED
from tests.process.sandboxes import Bench, Collected, response

ATTEMPTS = 3000 if LONG else 40
AT_A_TIME = 8

# Writes to the channel, which is descriptor 3, what the request's body says, and then does what it says.
HOSTILE = """
import base64, json, os
def handler(event, context):
    order = json.loads(base64.b64decode(event["body"]))
    data = bytes.fromhex(order["data"])
    while data:
        data = data[os.write(3, data[:order["most"]]):]
    if order["then"] == "exit":
        os._exit(0)
    if order["then"] == "close":
        os.close(3)
    return {"statusCode": 200, "body": "fine"}
"""
ECHO = """
def handler(event, context):
    return {"statusCode": 200, "body": event["body"], "isBase64Encoded": True}
"""


def frame(header: Any, body: bytes = b"") -> bytes:
    envelope = pack(header, body)
    return len(envelope).to_bytes(4, "big") + envelope


GOOD = [
    frame({"kind": "returned", "shape": "object", "statusCode": 200, "body": "text"}, b"mine"),
    frame({"kind": "streaming", "statusCode": 200, "headers": {"a": "b"}}),
    frame({"kind": "chunk"}, b"some"),
    frame({"kind": "returned", "shape": "streamed"}),
    frame({"kind": "raised", "error": {"type": "E", "message": "m"}}),
]
PIECES = [
    b"",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\0\0\0\1",
    b"\0\0\0\5\0\0\0\1{",
    b"\0\0\0\6\0\0\0\2{}",
    b"\0\0\0\6\0\0\0\2[]",
    b"\1" * 3000,
    frame({}),
    frame([]),
    frame({"kind": []}),
    frame({"kind": "streaming"}),
    frame({"kind": "streaming", "statusCode": 999}),
    frame({"kind": "streaming", "statusCode": 200, "headers": {"a\r\nb": "c"}}),
    frame({"kind": "returned", "shape": "object", "statusCode": 200, "headers": {"a": "b\r\nc: d"}}),
    frame({"kind": "returned", "retire": "x", "shape": [], "statusCode": {}}),
]


def mutated(chance: random.Random) -> bytes:
    """A few frames with a few mistakes."""
    data = b"".join(chance.choice(GOOD + PIECES) for _ in range(chance.randint(1, 4)))
    for _ in range(chance.randint(0, 3)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(3):
            case 0:
                data = data[:at] + chance.choice(PIECES) + data[at:]
            case 1:
                data = data[:at] + data[at + chance.randint(1, 8) :]
            case _:
                data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
    return data


async def hostile(bench: Bench, code: Code, chance: random.Random) -> None:
    order = {
        "data": mutated(chance).hex(),
        "most": chance.choice([1, 5, 1000, 100_000]),
        "then": chance.choice(["exit", "close", ""]),
    }
    sink = chance.choice([None, Collected()])
    finished = await bench.run(code, body=json.dumps(order).encode(), sink=sink, limit_s=1.0)
    assert isinstance(finished.outcome, Succeeded | Failed | Crashed | TimedOut), order
    decode_reply(encode_reply(finished.outcome))
    if sink is not None and sink.head is not None:
        assert 200 <= sink.head.status <= 599
        assert not any(set("\r\n\0") & set(name + value) for name, value in sink.head.headers)


async def test_whatever_a_worker_writes_is_the_outcome_of_its_own_attempt(bench: Bench) -> None:
    chance = random.Random(SEED)
    code = bench.function(HOSTILE)
    good = bench.function(ECHO)
    for number in range(ATTEMPTS // AT_A_TIME):
        neighbour = asyncio.create_task(bench.run(good, body=b"%d" % number))
        await asyncio.gather(*(hostile(bench, code, chance) for _ in range(AT_A_TIME)))
        assert response(await neighbour).body == b"%d" % number, f"seed {SEED}"


@BUDGET
@given(bodies=st.lists(st.binary(max_size=50), max_size=3), end=st.integers(0, 20), most=st.integers(1, 60))
def test_the_workers_reader_gives_whole_frames_however_they_come(
    bodies: list[bytes], end: int, most: int
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, patch("runner.sandbox.python.worker.READ_BYTES", most):
        worker = Worker(theirs.fileno())
        for body in bodies:  # the runner sends one, and waits for what comes of it
            ours.sendall(START.pack(START.size - 4 + len(body), 1.5) + body)
            assert worker.read() == (1.5, body)
        # And then it is gone, in the middle of one.
        ours.sendall((START.pack(START.size + 5, 1.5) + b"123456789")[:end])
        ours.shutdown(socket.SHUT_WR)
        assert worker.read() is None

"""The worker of JavaScript functions, spoken to in frames: what handlers get, return and throw."""

import asyncio
import fcntl
import json
import os
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node import NodeWorker
from tests.waiting import eventually

# One function for all that a handler can do; `?case=` says what it does.
CLASSIC = """
const { DoNotRetry, RetryAfter } = require('quarterhour');

class Special extends Error {}
const cyclic = {};
cyclic.cyclic = cyclic;
let calls = 0;

const cases = {
  async: async () => ({ statusCode: 200, body: 'async' }),
  plain: () => ({ statusCode: '201', headers: { 'x-a': 1 }, multiValueHeaders: { b: ['1', '2'] }, body: '' }),
  callback: (event, context, back) => void setTimeout(back, 1, null, { statusCode: 200, body: 'back' }),
  at_once: (event, context, callback) => callback(undefined, { statusCode: 200, body: 'at once' }),
  succeed: (event, context) => context.succeed({ statusCode: 200, body: 'succeeded' }),
  done: (event, context) => context.done(null, { statusCode: 200, body: 'done' }),
  base64: async () => ({ statusCode: 200, body: 'AAEC', isBase64Encoded: true }),
  not_base64: async () => ({ statusCode: 200, body: '?', isBase64Encoded: true }),
  number_body: async () => ({ statusCode: 200, body: 5 }),
  headers: async () => ({ statusCode: 200, headers: new Headers({ a: 'b' }) }),
  nothing: () => {},
  null: async () => null,
  list: async () => [1],
  text: async () => 'text',
  large: async () => ({ statusCode: 200, body: 'x'.repeat(1024 * 1024 + 1) }),
  bigint_header: async () => ({ statusCode: 200, headers: { a: 1n } }),
  event: async (event) => ({ statusCode: 200, body: JSON.stringify(event) }),
  context: async (event, { getRemainingTimeInMillis, ...context }) =>
    ({ statusCode: 200, body: JSON.stringify({ ...context, remaining: getRemainingTimeInMillis() }) }),
  calls: async () => ({ statusCode: 200, body: String(++calls) }),
  value: async (event) => JSON.parse(Buffer.from(event.body, 'base64')),
  cyclic: async () => cyclic,
  bigint: async () => 1n,
  function: async () => () => {},
  claims: async () => ({ statusCode: 503, body: 'later' }),
  error: async () => { throw new Special('it broke'); },
  cause: async () => { throw new Error('outer', { cause: new TypeError('inner') }); },
  sync_error: () => { throw new RangeError('at once'); },
  callback_error: (event, context, callback) => callback(new Error('called back')),
  callback_text: (event, context, callback) => callback('just text'),
  fail: (event, context) => context.fail(new Error('failed')),
  throw_text: async () => { throw 'text'; },
  throw_null: async () => { throw null; },
  throw_undefined: async () => { throw undefined; },
  throw_object: async () => { throw { a: 1 }; },
  throw_hostile: async () => {
    throw { get name() { throw 1; }, get message() { throw 2; }, get stack() { throw 3; } };
  },
  do_not_retry: async () => { throw new DoNotRetry('no use'); },
  retry_after: async () => { throw new RetryAfter(90, 'later'); },
  bad_retry_after: async () => { throw new RetryAfter(-1); },
};
exports.handler = (event, ...rest) => cases[event.queryStringParameters.case](event, ...rest);
"""


@pytest.fixture(scope="module")
def classic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeWorker]:
    with NodeWorker(tmp_path_factory.mktemp("classic"), CLASSIC) as worker:
        yield worker


def case(worker: NodeWorker, name: str, **more: Any) -> Any:
    return worker.call(query=f"case={name}", **more)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("async", "async"),
        ("callback", "back"),
        ("at_once", "at once"),
        ("succeed", "succeeded"),
        ("done", "done"),
    ],
)
def test_each_way_to_return(classic: NodeWorker, name: str, body: str) -> None:
    answer = case(classic, name)
    assert answer.header == {
        "kind": "returned",
        "shape": "object",
        "statusCode": 200,
        "body": "text",
    }
    assert answer.text == body


@pytest.mark.parametrize(
    ("name", "header", "body"),
    [
        ("plain", {"statusCode": "201", "headers": {"x-a": 1}, "multiValueHeaders": {"b": ["1", "2"]}}, b""),
        ("plain", {"body": "none"}, b""),
        ("base64", {"body": "base64"}, b"\x00\x01\x02"),
        ("not_base64", {"body": "invalid"}, b""),
        ("number_body", {"body": "invalid"}, b""),
        ("headers", {"headers": {"a": "b"}}, b""),
        ("nothing", {"kind": "returned", "shape": "nothing"}, b""),
        ("null", {"kind": "returned", "shape": "nothing"}, b""),
        ("list", {"kind": "returned", "shape": "other"}, b""),
        ("text", {"kind": "returned", "shape": "other"}, b""),
    ],
)
def test_results(classic: NodeWorker, name: str, header: dict[str, Any], body: bytes) -> None:
    answer = case(classic, name)
    assert {key: answer.header.get(key) for key in header} == header
    assert answer.body == body


@pytest.mark.parametrize(
    ("name", "type_", "message", "retry"),
    [
        ("error", "Special", "it broke", True),
        ("sync_error", "RangeError", "at once", True),
        ("callback_error", "Error", "called back", True),
        ("callback_text", "string", "just text", True),
        ("fail", "Error", "failed", True),
        ("throw_text", "string", "text", True),
        ("throw_null", "null", "null", True),
        ("throw_undefined", "undefined", "undefined", True),
        ("throw_object", "Object", '{"a":1}', True),
        ("throw_hostile", "Object", "(its message cannot be shown)", True),
        ("do_not_retry", "DoNotRetry", "no use", False),
        ("retry_after", "RetryAfter", "later", True),
        ("bad_retry_after", "RangeError", "RetryAfter needs a delay of 0 or more seconds, not -1.", True),
        ("large", "ResponseTooLarge", "The response's body has 1048577 bytes; 1048576 are allowed.", True),
        ("bigint_header", "InvalidResult", "The status or the headers that the handler returned", False),
    ],
)
def test_errors(classic: NodeWorker, name: str, type_: str, message: str, retry: bool) -> None:
    answer = case(classic, name)
    assert answer.error["type"] == type_
    assert answer.error["message"].startswith(message)
    assert (answer.header["retry"], answer.header["retire"]) == (retry, False)
    assert answer.header["retry_after_s"] == (90 if name == "retry_after" else None)


def test_a_trace_is_of_the_functions_own_code(classic: NodeWorker) -> None:
    trace = case(classic, "error").error["trace"]
    assert trace[0] == "Error: it broke"
    assert "hello.js:" in trace[1]
    assert not [line for line in trace if "/sandbox/node/" in line or "node:internal" in line]


def test_a_trace_has_the_causes(classic: NodeWorker) -> None:
    assert "Caused by: TypeError: inner" in case(classic, "cause").error["trace"]


def test_the_event_is_that_of_the_vectors(classic: NodeWorker) -> None:
    event = case(classic, "event", body=b"\xff", path="/.netlify/functions/hello/a").value
    assert event["path"] == "/.netlify/functions/hello/a"
    assert (event["httpMethod"], event["body"], event["isBase64Encoded"]) == ("POST", "/w==", True)
    assert case(classic, "event").value["body"] is None
    assert case(classic, "event", body=b"").value["body"] == ""


def test_the_context(classic: NodeWorker) -> None:
    errors = [{"type": "Error", "message": "earlier"}]
    began = time.monotonic()
    context = case(classic, "context", attempt=2, errors=errors, limit_s=60.0).value
    took_ms = 1000 * (time.monotonic() - began)
    assert 60_000 - took_ms - 50 < context.pop("remaining") <= 60_000
    assert context == {
        "awsRequestId": "0190a",
        "functionName": "hello",
        "functionVersion": "$LATEST",
        "invokedFunctionArn": "arn:quarterhour:lambda:local:000000000000:function:hello",
        "memoryLimitInMB": "512",
        "logGroupName": "/quarterhour/hello",
        "logStreamName": "0190a",
        "clientContext": {},
        "callbackWaitsForEmptyEventLoop": True,
        "attempt": 2,
        "errors": errors,
        "params": {},
    }


def test_the_module_stays(classic: NodeWorker) -> None:
    first = int(case(classic, "calls").text)
    assert int(case(classic, "calls").text) == first + 1


@pytest.mark.parametrize("mode", ["background", "scheduled"])
def test_a_value_that_nobody_waits_for(classic: NodeWorker, mode: str) -> None:
    answer = case(classic, "value", body=b'{"a": [1, null]}', mode=mode)
    assert answer.header == {"kind": "returned", "shape": "other"}
    assert answer.value == {"a": [1, None]}
    claimed = case(classic, "claims", mode=mode)
    assert (claimed.header["shape"], claimed.header["statusCode"]) == ("object", 503)
    assert claimed.value == {"statusCode": 503, "body": "later"}
    assert case(classic, "nothing", mode=mode).header == {"kind": "returned", "shape": "nothing"}
    long = case(classic, "value", body=json.dumps("x" * 100_000).encode(), mode=mode)
    assert len(long.body) == 65536


@pytest.mark.parametrize("name", ["cyclic", "bigint", "function"])
def test_a_value_that_is_not_json(classic: NodeWorker, name: str) -> None:
    answer = case(classic, name, mode="background")
    assert answer.error["type"] == "InvalidResult"
    assert answer.error["message"].startswith("What the handler returned is not JSON: ")
    assert not answer.header["retry"]


def test_a_large_request_and_a_large_response(tmp_path: Path) -> None:
    source = "exports.handler = async (event) => ({ statusCode: 200, body: event.body })"
    with NodeWorker(tmp_path, source, response_bytes_max=6 << 20) as worker:
        body = b"0123456789abcdef" * (6 << 16)
        assert worker.call(body, headers=[["content-type", "text/plain"]]).body == body


def test_a_frame_may_come_in_pieces(tmp_path: Path) -> None:
    with NodeWorker(tmp_path, "exports.handler = async (e) => ({ statusCode: 200, body: e.path })") as worker:
        worker.call()
        sent: list[bytes] = []
        real, worker.channel = worker.channel, Recorder(sent)  # type: ignore[assignment]
        worker.start(path="/a")
        worker.channel = real
        for byte in sent[0][:20]:
            real.send(bytes([byte]))
            time.sleep(0.002)  # so that each is read for itself
        real.sendall(sent[0][20:])
        assert worker.answer().text == "/a"


class Recorder:
    """Stands in for a channel and keeps what is sent."""

    def __init__(self, sent: list[bytes]) -> None:
        self._sent = sent

    def sendall(self, data: bytes) -> None:
        self._sent.append(data)


def test_a_result_that_nothing_can_bring_about(tmp_path: Path) -> None:
    source = """
    exports.handler = (event) => event.queryStringParameters.promise ? new Promise(() => {}) : undefined;
    """
    with NodeWorker(tmp_path, source) as worker:
        assert worker.call().header == {"kind": "returned", "shape": "nothing"}
        answer = worker.call(query="promise=1")
        assert "nothing is left that could bring it about" in answer.error["message"]


def test_timers_that_are_left_go_on_and_disturb_nobody(tmp_path: Path) -> None:
    source = """
    let ticks = 0;
    exports.handler = async () => {
      setInterval(() => { ticks += 1; }, 1);
      return { statusCode: 200, body: String(ticks) };
    };
    """
    with NodeWorker(tmp_path, source) as worker:
        assert worker.call().text == "0"
        eventually_ticks(worker)


def eventually_ticks(worker: NodeWorker) -> None:
    ends_at = time.monotonic() + 30
    while worker.call().text == "0":
        assert time.monotonic() < ends_at


@pytest.mark.parametrize(
    "wrong",
    [
        "Promise.reject(new TypeError('nobody waits'))",
        "setImmediate(() => { throw new TypeError('nobody waits') })",
    ],
)
def test_an_error_that_nothing_awaits_fails_the_attempt_that_runs(tmp_path: Path, wrong: str) -> None:
    source = f"""
    exports.handler = async () => {{
      {wrong};
      await new Promise((resolve) => setTimeout(resolve, 20_000));
    }};
    """
    with NodeWorker(tmp_path, source) as worker:
        answer = worker.call()
        assert (answer.error["type"], answer.error["message"]) == ("TypeError", "nobody waits")
        assert answer.header["retire"]


async def test_an_error_between_attempts_is_printed_and_retires_the_worker(tmp_path: Path) -> None:
    source = """
    exports.handler = async () => {
      setTimeout(() => { throw new Error('too late'); }, 1);
      return { statusCode: 200, body: 'fine' };
    };
    """
    with NodeWorker(tmp_path, source) as worker:
        first = worker.call()
        assert first.text == "fine"
        await eventually(lambda: "too late" in worker.printed(), what="the error was printed")
        second = worker.call()
        assert (second.header["kind"], second.header["retire"]) == ("returned", True)


def test_what_is_printed_is_there_before_the_result(tmp_path: Path) -> None:
    source = """
    exports.handler = async () => {
      for (let i = 0; i < 3; i += 1) { console.log('out', i); console.error('err', i); }
      return { statusCode: 200 };
    };
    """
    with NodeWorker(tmp_path, source) as worker:
        worker.call()
        assert worker.printed() == "".join(f"out {i}\nerr {i}\n" for i in range(3))


async def test_what_is_printed_before_an_exit_is_not_lost(tmp_path: Path) -> None:
    source = (
        "exports.handler = async () => { for (let i = 0; i < 5e4; i += 1) console.log(i); process.exit(0); }"
    )
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as printed, NodeWorker(tmp_path, source, output=writer) as worker:
        os.close(writer)
        worker.start()
        await eventually(lambda: waiting_bytes(reader) > 60_000, what="the pipe was full")
        await asyncio.sleep(0.1)  # what would be lost is lost by now
        assert printed.read().splitlines()[-1] == b"49999"


def waiting_bytes(descriptor: int) -> int:
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4), sys.byteorder)


def test_an_exit_is_an_exit(tmp_path: Path) -> None:
    with NodeWorker(tmp_path, "exports.handler = async () => process.exit(3)") as worker:
        worker.start()
        assert list(worker.frames()) == []
        assert worker.process.wait(30) == 3


def test_a_worker_ends_with_its_channel(tmp_path: Path) -> None:
    with NodeWorker(tmp_path, "setInterval(() => {}, 1); exports.handler = async () => ({})") as worker:
        worker.call()
        worker.channel.shutdown(2)
        assert worker.process.wait(30) == 0


def test_too_much_memory_ends_the_worker(tmp_path: Path) -> None:
    source = (
        "exports.handler = async () => { const a = []; for (;;) a.push(new Array(1e5).fill(a.length / 3)); }"
    )
    with NodeWorker(tmp_path, source, memory_mib=64) as worker:
        worker.start()
        assert list(worker.frames()) == []
        assert worker.process.wait(60) != 0


def test_children_that_are_left_retire_the_worker(tmp_path: Path) -> None:
    source = """
    const { spawn, execFileSync } = require('node:child_process');
    exports.handler = async (event) => {
      if (event.queryStringParameters.ended) execFileSync('true');
      else spawn('sleep', ['5'], { stdio: 'ignore' }).unref();
      return { statusCode: 200 };
    };
    """
    with NodeWorker(tmp_path, source) as worker:
        assert "retire" not in worker.call(query="ended=1").header
        assert worker.call().header["retire"] is True


def test_the_environment_and_the_arguments(tmp_path: Path) -> None:
    source = """
    exports.handler = async () => ({
      statusCode: 200,
      body: JSON.stringify([process.env.COLOR, Netlify.env.get('COLOR'), process.argv.slice(1)]),
    });
    """
    with NodeWorker(tmp_path, source, environment={"COLOR": "red"}) as worker:
        assert worker.call().value == ["red", "red", [str(worker.path)]]

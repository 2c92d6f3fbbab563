"""Results that cannot be sent or kept, in both languages and both modes: failures with a sentence."""

import asyncio

from quarterhour.function import Mode
from quarterhour.outcome import Failed
from runner.sandbox.runtimes import RUNTIMES
from tests.node import node
from tests.process.sandboxes import Bench

LIMIT_S = 120.0  # no part of what is shown: many workers start at once, which counts for each of them

PYTHON = """
import base64
cyclic = {}
cyclic["cyclic"] = cyclic
deep = []
for _ in range(100_000):
    deep = [deep]
def endless():
    while True:
        yield 1
async def endless_too():
    while True:
        yield "x"
class Liar(dict):
    def __contains__(self, key):
        raise KeyError(key)
    get = __contains__
def handler(event, context):
    return eval(base64.b64decode(event["body"]))
"""
NODE = """
const cyclic = {};
cyclic.cyclic = cyclic;
let deep = [];
for (let n = 0; n < 100_000; n += 1) deep = [deep];
exports.handler = async (event) => eval(`(${Buffer.from(event.body, 'base64')})`);
"""
# What a background handler returned. Its message begins "What the handler returned is not JSON: ".
VALUES = {
    "python": [
        "{1, 2}",
        "float('nan')",
        "[float('inf')]",
        "b'bytes'",
        "{'a': '\\ud800'}",
        "{(1, 2): 3}",
        "object()",
        "cyclic",
        "deep",
        "endless()",
        "endless_too()",
        "10 ** 5000",
    ],
    "node": [
        "10n",
        "Symbol('x')",
        "() => 1",
        "cyclic",
        "deep",
        "({ a: '\\ud800' })",
        "'\\\\\\ud800'",
        "({ toJSON() { throw new Error('no'); } })",
    ],
}
# What a handler returned to somebody who waits, with the type of the error.
RESPONSES = {
    "python": {
        "{'statusCode': 200, 'body': '\\ud800'}": "InvalidResult",
        "{'statusCode': 200, 'body': b'bytes'}": "InvalidResult",
        "{'statusCode': 200, 'headers': cyclic}": "InvalidResult",
        "{'statusCode': 200, 'headers': {'a': deep}}": "InvalidResult",
        "{'statusCode': 200, 'headers': {(1, 2): 'x'}}": "InvalidResult",
        "{'statusCode': 200, 'body': 'x' * (8 << 20)}": "ResponseTooLarge",
        "endless()": "InvalidResult",
        "Liar()": "KeyError",
    },
    "node": {
        "{ statusCode: 200, body: '\\ud800' }": "InvalidResult",
        "{ statusCode: 200, body: Buffer.from('x') }": "InvalidResult",
        "{ statusCode: 200, headers: cyclic }": "InvalidResult",
        "{ statusCode: 200, headers: { a: deep } }": "InvalidResult",
        "{ statusCode: 200, body: 'x'.repeat(8 << 20) }": "ResponseTooLarge",
        "{ get statusCode() { throw new TypeError('no'); } }": "TypeError",
    },
}


async def failure(bench: Bench, language: str, result: str, mode: Mode) -> Failed:
    """How a handler that returns `result` has failed."""
    if language == "python":
        code = bench.function(PYTHON, name="python")
    else:
        node()
        launch = RUNTIMES["node"].launch(installed=None, memory_mib=512)
        code = bench.function(NODE, name="node", suffix=".js", launch=launch)
    outcome = (await bench.run(code, mode=mode, body=result.encode(), limit_s=LIMIT_S)).outcome
    assert isinstance(outcome, Failed), (result, outcome)
    return outcome


async def test_values_that_are_no_json_fail_for_good_with_a_sentence(bench: Bench) -> None:
    cases = [(language, value) for language, values in VALUES.items() for value in values]
    failed = await asyncio.gather(*(failure(bench, *case, Mode.BACKGROUND) for case in cases))
    for case, outcome in zip(cases, failed, strict=True):
        error = outcome.error
        assert (error.type, outcome.retry) == ("InvalidResult", False), (case, error)
        assert error.message.startswith("What the handler returned is not JSON: "), (case, error)
        assert error.message.endswith("."), (case, error)


async def test_responses_that_cannot_be_sent_fail_with_a_sentence(bench: Bench) -> None:
    cases = [(language, each) for language, responses in RESPONSES.items() for each in responses]
    failed = await asyncio.gather(*(failure(bench, *case, Mode.SYNCHRONOUS) for case in cases))
    for (language, result), outcome in zip(cases, failed, strict=True):
        assert outcome.error.type == RESPONSES[language][result], (result, outcome)
        assert outcome.error.message, result


async def test_an_escape_that_only_looks_like_half_a_character_is_a_value(bench: Bench) -> None:
    node()
    launch = RUNTIMES["node"].launch(installed=None, memory_mib=512)
    code = bench.function(NODE, suffix=".js", launch=launch)
    for text in (rb"'\\ud800'", "'\U0001f600'".encode(), rb"'\\\\ud800'"):
        finished = await bench.run(code, mode=Mode.BACKGROUND, body=text)
        assert not isinstance(finished.outcome, Failed), finished

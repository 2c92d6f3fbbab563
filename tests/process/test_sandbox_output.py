"""What handlers print: whole lines, each tagged with its invocation, bounded, in nobody's way."""

import asyncio
import os
import statistics
import time
from pathlib import Path

import pytest

from quarterhour.outcome import Crashed, TimedOut
from quarterhour.record import LOGS_BYTES_MAX
from runner.sandbox.runtimes import RUNTIMES
from tests.node import node
from tests.process.sandboxes import Bench, response
from tests.process.test_sandbox_limits import limit_comes, logs_at_the_limit

LINE_BYTES_MAX = 16 * 1024
MIB = 1024 * 1024
LIMIT_S = 120.0

SAY = """
    import os, subprocess, sys, time
    def handler(event, context):
        exec(event["body"] and __import__("base64").b64decode(event["body"]))
        return {"statusCode": 200}
    """


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def texts(bench: Bench, invocation: str, stream: str = "stdout") -> list[str]:
    return [line.text for line in bench.lines if (line.invocation, line.stream) == (invocation, stream)]


async def test_lines_of_both_streams_are_tagged_with_function_and_invocation(bench: Bench) -> None:
    code = bench.function(SAY, name="say")
    await bench.run(code, id="one", body=b"print('out'); print('err', file=sys.stderr)")
    await bench.run(code, id="two", body=b"print('out again')")
    assert {line.function for line in bench.lines} == {"say"}
    assert texts(bench, "one") == ["out"]
    assert texts(bench, "one", "stderr") == ["err"]
    assert texts(bench, "two") == ["out again"]


async def test_attempts_at_the_same_time_keep_their_lines_apart(bench: Bench) -> None:
    code = bench.function(SAY)
    body = b"for n in range(50): print(context.aws_request_id); time.sleep(0.001)"
    ids = ["a", "b", "c", "d"]
    await asyncio.gather(*(bench.run(code, id=id, body=body) for id in ids))
    assert [texts(bench, id) for id in ids] == [[id] * 50 for id in ids]


async def test_the_last_line_needs_no_end(bench: Bench) -> None:
    body = b"print('whole'); print('part', end=''); sys.stderr.write('also')"
    finished = await bench.run(bench.function(SAY), id="one", body=body)
    assert texts(bench, "one") == ["whole", "part"]
    assert texts(bench, "one", "stderr") == ["also"]
    assert sorted(finished.logs.splitlines()) == ["also", "part", "whole"]


async def test_a_partial_line_is_not_the_next_invocations(bench: Bench) -> None:
    code = bench.function(SAY)
    await bench.run(code, id="one", body=b"print('one', end='')")
    finished = await bench.run(code, id="two", body=b"print('two')")
    assert texts(bench, "two") == ["two"]
    assert finished.logs == "two\n"


async def test_lines_come_while_the_handler_runs(bench: Bench) -> None:
    running = asyncio.create_task(bench.run(bench.function(SAY), body=b"print('now'); time.sleep(1000)"))
    await bench.printed("now")
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_children_print_belongs_to_the_attempt(bench: Bench) -> None:
    body = b"""subprocess.run(["sh", "-c", "echo child; echo error >&2; printf partial"], check=True)"""
    finished = await bench.run(bench.function(SAY), id="one", body=body)
    assert texts(bench, "one") == ["child", "partial"]
    assert texts(bench, "one", "stderr") == ["error"]
    assert "child\n" in finished.logs


async def test_printing_to_the_descriptor_itself(bench: Bench) -> None:
    await bench.run(bench.function(SAY), id="one", body=b"os.write(1, b'raw\\n'); os.write(2, b'\\xff\\n')")
    assert texts(bench, "one") == ["raw"]
    assert texts(bench, "one", "stderr") == ["\ufffd"]


async def test_what_is_no_text_is_shown_all_the_same(bench: Bench) -> None:
    await bench.run(bench.function(SAY), id="one", body=rb"print('\ud800 \u20ac'); print('a\rb\x00')")
    assert texts(bench, "one") == ["\\ud800 \u20ac", "a\rb\x00"]


async def test_empty_lines_are_lines(bench: Bench) -> None:
    await bench.run(bench.function(SAY), id="one", body=b"print(); print('a'); print()")
    assert texts(bench, "one") == ["", "a", ""]


async def test_a_long_line_is_cut(bench: Bench) -> None:
    await bench.run(bench.function(SAY), id="one", body=b"print('a' * 40_000 + 'end')")
    lines = texts(bench, "one")
    assert max(map(len, lines)) == LINE_BYTES_MAX
    assert "".join(lines) == "a" * 40_000 + "end"
    assert len(lines) == 3


async def test_a_line_is_not_cut_within_a_character(bench: Bench) -> None:
    await bench.run(bench.function(SAY), id="one", body="print('a' + 'é' * 20_000)".encode())
    assert "".join(texts(bench, "one")) == "a" + "é" * 20_000


async def test_the_logs_kept_are_the_last_64_kib(bench: Bench) -> None:
    finished = await bench.run(
        bench.function(SAY), body=b"for n in range(5000): print(f'line {n:05} ' + 'x' * 40)"
    )
    assert len(finished.logs.encode()) <= LOGS_BYTES_MAX
    assert len(finished.logs) > LOGS_BYTES_MAX - 100
    assert finished.logs.splitlines()[-1].startswith("line 04999")


async def test_logs_of_wide_characters_are_bounded_in_bytes(bench: Bench) -> None:
    finished = await bench.run(bench.function(SAY), body="for n in range(3000): print('€' * 40)".encode())
    assert len(finished.logs.encode()) <= LOGS_BYTES_MAX


async def test_the_logs_of_a_crash_and_of_a_timeout_are_kept(bench: Bench) -> None:
    code = bench.function(SAY)
    crashed = await bench.run(code, body=b"print('before', end='', flush=True); os._exit(3)")
    assert (crashed.outcome, crashed.logs) == (Crashed(exit_status=3), "before\n")
    assert await logs_at_the_limit(bench, code, body=b"print('before'); time.sleep(1000)") == "before\n"


async def test_a_flood_blocks_neither_its_worker_nor_the_runner(bench: Bench) -> None:
    code = bench.function(SAY)
    attempt = bench.attempt(code, id="flood", body=b"while True: print('x' * 200)", limit_s=LIMIT_S)
    flood = asyncio.create_task(attempt.run())
    await bench.printed("x")
    quick = bench.function("def handler(event, context): return {'statusCode': 200}")
    took_s = []
    for _ in range(41):
        began = time.monotonic()
        assert response(await bench.run(quick)).status == 200
        took_s.append(time.monotonic() - began)
    assert not flood.done()
    assert statistics.median(took_s) < 0.25, "the others were kept waiting"
    limit_comes(bench, attempt)
    assert (await flood).outcome == TimedOut(limit_s=LIMIT_S)
    assert len(texts(bench, "flood")) <= 10_001, "what is shown of one attempt is bounded"


FLOOD_MIB = 1024 if os.environ.get("QUARTERHOUR_TEST_LONG") == "true" else 16
LINE_MIB = min(FLOOD_MIB, 128)
NODE_LINES = "process.stdout.write(('x'.repeat(63) + '\\n').repeat(16384))"
FLOODS = {
    ("python", "lines"): f"for _ in range({FLOOD_MIB}): print(('x' * 63 + chr(10)) * 16384, end='')",
    ("python", "one line"): f"print('x' * ({LINE_MIB} << 20))",
    ("node", "lines"): f"for (let n = 0; n < {FLOOD_MIB}; n += 1) {NODE_LINES}",
    ("node", "one line"): f"console.log('x'.repeat({LINE_MIB} << 20))",
}


@pytest.mark.parametrize(("language", "kind"), FLOODS)
async def test_a_flood_is_cut_and_says_so_and_lets_its_function_end(
    bench: Bench, kind: str, language: str
) -> None:
    flood = FLOODS[language, kind]
    if language == "python":
        code = bench.function(SAY, memory_mib=1024)
    else:
        node()
        launch = RUNTIMES["node"].launch(installed=None, memory_mib=1024)
        source = f"exports.handler = async () => {{ {flood}; return {{ statusCode: 200 }} }}"
        code = bench.function(source, suffix=".js", launch=launch, memory_mib=1024)
    before = resident_bytes()
    finished = await bench.run(code, id="flood", body=flood.encode(), limit_s=LIMIT_S)
    assert response(finished).status == 200
    lines = texts(bench, "flood")
    assert len(lines) <= 10_001
    assert sum(map(len, lines)) <= 4 * MIB + LINE_BYTES_MAX + 100
    assert lines[-1] == f"(after {len(lines) - 1} lines: the rest is not shown)"
    assert finished.logs.splitlines()[0].endswith(" earlier lines are not kept)")
    assert len(finished.logs) <= LOGS_BYTES_MAX
    assert resident_bytes() - before < 32 * MIB, "what the runner holds is bounded"


async def test_more_output_than_a_pipe_holds_arrives_whole(bench: Bench) -> None:
    body = b"for n in range(9000): print(f'{n:06}', 'y' * 100)"
    finished = await bench.run(bench.function(SAY), id="one", body=body)
    assert response(finished).status == 200
    assert [int(text[:6]) for text in texts(bench, "one")] == list(range(9000))

"""What a handler may be and do in a worker: its forms, its module, its errors."""

import json
import sys
from pathlib import Path

import pytest

from quarterhour.function import Mode
from quarterhour.outcome import Error, Failed, Succeeded
from tests.process.interpreters import another_python
from tests.process.sandboxes import Bench, error, open_bench, response, settings, value


async def test_a_plain_handler(bench: Bench) -> None:
    finished = await bench.run(
        """
        def handler(event, context):
            return {"statusCode": 201, "headers": {"X-A": "1"}, "body": event["body"].upper()}
        """,
        body=b"",
    )
    assert response(finished).status == 201
    assert response(finished).headers == (("x-a", "1"),)
    assert finished.started_at <= finished.finished_at


async def test_a_coroutine_handler_whose_loop_stays(bench: Bench) -> None:
    code = bench.function(
        """
        import asyncio
        loops = []
        async def handler(event, context):
            await asyncio.sleep(0)
            loops.append(asyncio.get_running_loop())
            return {"statusCode": 200, "body": f"{len(loops)} {len(set(loops))}"}
        """
    )
    assert [await bench.text(code) for _ in range(2)] == ["1 1", "2 1"]


async def test_any_awaitable_will_do(bench: Bench) -> None:
    source = """
        class Later:
            def __await__(self):
                return {"statusCode": 200, "body": "later"}
                yield
        def handler(event, context):
            return Later()
        """
    assert await bench.text(source) == "later"


async def test_base64_and_binary_bodies(bench: Bench) -> None:
    finished = await bench.run(
        """
        import base64
        def handler(event, context):
            raw = base64.b64decode(event["body"])
            return {"statusCode": 200, "isBase64Encoded": True, "body": base64.b64encode(raw[::-1]).decode()}
        """,
        body=bytes(range(256)) * 1000,
    )
    assert response(finished).body == (bytes(range(256)) * 1000)[::-1]


async def test_event_and_context_reach_the_handler(bench: Bench) -> None:
    source = """
        import json
        def handler(event, context):
            assert 40_000 < context.get_remaining_time_in_millis() <= 60_000
            seen = [event["path"], context.aws_request_id, context.function_name, context.attempt,
                    context.memory_limit_in_mb, [error["message"] for error in context.errors]]
            return {"statusCode": 200, "body": json.dumps(seen)}
        """
    code = bench.function(source, name="seen", memory_mib=256)
    errors = (Error(type="E", message="once"),)
    text = await bench.text(code, id="0190", attempt=2, errors=errors, limit_s=60)
    assert json.loads(text) == ["/.netlify/functions/seen", "0190", "seen", 2, 256, ["once"]]


async def test_a_background_function_returns_any_json(bench: Bench) -> None:
    source = "def handler(event, context): return {'é': [1, None]}"
    assert value(await bench.run(source, mode=Mode.BACKGROUND)) == '{"é": [1, null]}'.encode()
    assert value(await bench.run("def handler(e, c): pass", mode=Mode.SCHEDULED)) is None


async def test_a_background_function_that_returns_no_json_fails_for_good(bench: Bench) -> None:
    finished = await bench.run("def handler(event, context): return object()", mode=Mode.BACKGROUND)
    assert isinstance(finished.outcome, Failed)
    assert finished.outcome.error.type == "InvalidResult"
    assert not finished.outcome.retry


async def test_the_status_of_a_background_function_counts_unless_ignored(bench: Bench) -> None:
    code = bench.function("def handler(e, c): return {'statusCode': 503, 'body': 'later'}")
    failed = (await bench.run(code, mode=Mode.BACKGROUND)).outcome
    assert isinstance(failed, Failed)
    assert failed.error.type == "ReturnedStatus"
    assert failed.retry
    ignored = await bench.run(code, mode=Mode.BACKGROUND, returned_status="ignore")
    assert isinstance(ignored.outcome, Succeeded)


@pytest.mark.parametrize(
    "result",
    [
        "{'statusCode': 200, 'body': 5}",
        "{'statusCode': 200, 'body': 'no base64!', 'isBase64Encoded': True}",
        "{'statusCode': 200, 'headers': {'a': object()}}",
        "{'statusCode': 200, 'headers': {('a',): 'b'}}",
        "{'statusCode': 200, 'headers': {'a': '\\ud800'}}",
        "{'statusCode': float('nan')}",
        "{'statusCode': object()}",
        "{'statusCode': 10**400}",
        "{}",
        "[]",
        "'text'",
        "None",
    ],
)
async def test_a_result_that_is_none_is_a_failure(bench: Bench, result: str) -> None:
    assert error(await bench.run(f"def handler(event, context): return {result}")).type == "InvalidResult"


async def test_a_body_past_the_limit_is_a_failure(bench: Bench) -> None:
    code = bench.function(
        "def handler(event, context): return {'statusCode': 200, 'body': 'a' * int(event['body'] or 0)}"
    )
    fits = bench.attempt(code)
    assert response(await fits.run()).body == b""
    source = "def handler(event, context): return {'statusCode': 200, 'body': 'a' * (1024 * 1024 + %d)}"
    assert len(await bench.text(source % 0)) == 1024 * 1024
    assert "1048577 bytes" in error(await bench.run(source % 1)).message


async def test_headers_past_every_limit_are_a_failure(bench: Bench) -> None:
    source = "def handler(event, context): return {'statusCode': 200, 'headers': {'x-a': 'a' * (3 << 20)}}"
    assert error(await bench.run(source)).type == "InvalidResult"


async def test_two_files_of_one_name_have_a_module_each(bench: Bench, tmp_path: Path) -> None:
    source = """
        import sys
        def handler(event, context):
            return {"statusCode": 200, "body": f"%s {__name__} {'main' in sys.modules}"}
        """
    texts = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        inner = Bench(sandbox=bench.sandbox, folder=tmp_path / folder, lines=bench.lines)
        texts.append(await bench.text(inner.function(source % folder, name="main")))
    one, two = (text.split() for text in texts)
    assert (one[0], two[0]) == ("one", "two")
    assert one[1] not in {"main", "__main__"}
    assert one[2] == two[2] == "False"


async def test_siblings_can_be_imported(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "greeting.py").write_text("WORD = 'hi'")
    source = """
        from greeting import WORD
        def handler(event, context):
            return {"statusCode": 200, "body": WORD}
        """
    assert await bench.text(source) == "hi"


async def test_dataclasses_and_pickle_find_the_module(bench: Bench) -> None:
    source = """
        from __future__ import annotations
        import pickle
        from dataclasses import dataclass
        @dataclass
        class Point:
            x: int
        def handler(event, context):
            return {"statusCode": 200, "body": str(pickle.loads(pickle.dumps(Point(5))).x)}
        """
    assert await bench.text(source) == "5"


async def test_do_not_retry(bench: Bench) -> None:
    finished = await bench.run(
        """
        from quarterhour import DoNotRetry
        class Hopeless(DoNotRetry): pass
        def handler(event, context):
            raise Hopeless("no such address")
        """,
        mode=Mode.BACKGROUND,
    )
    assert isinstance(finished.outcome, Failed)
    assert not finished.outcome.retry
    assert finished.outcome.error.type == "Hopeless"
    assert finished.outcome.error.message == "no such address"


async def test_retry_after(bench: Bench) -> None:
    finished = await bench.run(
        """
        from quarterhour import RetryAfter
        def handler(event, context):
            raise RetryAfter(90, "the service is down")
        """,
        mode=Mode.BACKGROUND,
    )
    assert isinstance(finished.outcome, Failed)
    assert (finished.outcome.retry, finished.outcome.retry_after_s) == (True, 90.0)
    assert finished.outcome.error.message == "the service is down"


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_an_exception_tells_where_it_was_raised_and_nothing_of_ours(bench: Bench, kind: str) -> None:
    shown = error(
        await bench.run(
            f"""
            def deeper():
                raise ValueError("no such thing")
            {kind} handler(event, context):
                deeper()
            """
        )
    )
    assert (shown.type, shown.message) == ("ValueError", "no such thing")
    trace = "\n".join(shown.trace)
    assert "in handler" in trace
    assert "in deeper" in trace
    assert "worker.py" not in trace
    assert "asyncio" not in trace


async def test_exceptions_are_bounded(bench: Bench) -> None:
    shown = error(
        await bench.run(
            """
            def odd(n):
                return even(n - 1) if n else 1 / 0
            def even(n):
                return odd(n - 1) if n else 1 / 0
            def handler(event, context):
                try:
                    odd(100)
                except ZeroDivisionError as first:
                    raise ValueError("m" * 100_000) from first
            """
        )
    )
    assert len(shown.message) == 8192
    assert len(shown.trace) == 50
    assert max(map(len, shown.trace)) == 1024


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        ("ValueError('\\ud800')", "ValueError"),
        ("KeyboardInterrupt", "KeyboardInterrupt"),
        ("GeneratorExit", "GeneratorExit"),
        ("type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})()", "Mute"),
        ("ExceptionGroup('several', [ValueError(1)])", "ExceptionGroup"),
        ("__import__('asyncio').CancelledError()", "CancelledError"),
    ],
)
@pytest.mark.parametrize("handler", ["def", "async def"])
async def test_whatever_is_raised_fails_the_attempt_alone(
    bench: Bench, handler: str, raised: str, kind: str
) -> None:
    code = bench.function(f"{handler} handler(event, context):\n    raise {raised}")
    assert error(await bench.run(code)).type == kind
    assert error(await bench.run(code)).type == kind


async def test_sys_exit_is_an_error(bench: Bench) -> None:
    shown = error(await bench.run("import sys\ndef handler(event, context): sys.exit('enough')"))
    assert shown.type == "SystemExit"
    assert "enough" in shown.message


async def test_an_import_error_is_a_failure_and_the_next_attempt_starts_afresh(
    bench: Bench, tmp_path: Path
) -> None:
    code = bench.function("import notyet\ndef handler(event, context): return {'statusCode': 200}")
    first = (await bench.run(code)).outcome
    assert isinstance(first, Failed)
    assert first.error.type == "ModuleNotFoundError"
    assert first.retry
    (tmp_path / "notyet.py").write_text("")
    assert response(await bench.run(code)).status == 200


@pytest.mark.parametrize("source", ["", "handler = 5"])
async def test_a_module_without_a_handler_says_so(bench: Bench, source: str) -> None:
    shown = error(await bench.run(source))
    assert shown.type == "HandlerNotFound"
    assert "handler(event, context)" in shown.message


async def test_a_syntax_error_names_the_line(bench: Bench) -> None:
    shown = error(await bench.run("def handler(event, context):\n    return ]"))
    assert shown.type == "SyntaxError"
    assert "line 2" in shown.message


async def test_another_interpreter(tmp_path: Path) -> None:
    python, version = another_python()
    async with open_bench(tmp_path, settings(python=python)) as bench:
        text = await bench.text(
            """
            import sys
            from quarterhour import DoNotRetry, RetryAfter
            async def handler(event, context):
                return {"statusCode": 200, "body": "%d.%d" % sys.version_info[:2]}
            """
        )
        assert text == version != "{}.{}".format(*sys.version_info)
        shown = error(
            await bench.run(
                "from quarterhour import DoNotRetry\ndef handler(event, context): raise DoNotRetry('no')"
            )
        )
        assert shown.type == "DoNotRetry"

"""A handler that ends or wrecks its worker harms its own attempt alone, and is noticed at once."""

import asyncio
import sys
import time
from typing import Any

import pytest

from quarterhour.function import Mode
from quarterhour.outcome import Crashed, Failed, Outcome, TimedOut
from tests.process.sandboxes import Bench, error, response

NEIGHBOUR = """
    import os, time
    from pathlib import Path
    def handler(event, context):
        print("neighbour", os.getpid())
        while not Path("%s").exists():
            time.sleep(0.002)
        return {"statusCode": 200, "body": "unharmed"}
    """

EXIT = "os._exit(3)"
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
ABORTED = "os.abort()"
SEGFAULT = "ctypes.string_at(0)"
ALL_CLOSED = "os.closerange(0, 4096)"
CHANNEL_CLOSED = "os.close(3); time.sleep(1000)"
NO_FRAME = "os.write(3, b'\\xff' * 100); time.sleep(1000)"
GROUP_KILLED = "os.killpg(0, signal.SIGKILL)"
OUT_OF_MEMORY = "raise MemoryError"


def source_of(crash: str) -> str:
    return f"""
        import asyncio, ctypes, os, signal, subprocess, sys, threading, time
        def handler(event, context):
            print("at", time.time())
            {crash}
        """


@pytest.mark.parametrize(
    ("crash", "outcome"),
    [
        (EXIT, Crashed(exit_status=3)),
        ("os._exit(0)", Crashed(exit_status=0)),
        (KILLED, Crashed(signal="SIGKILL")),
        ("os.kill(os.getpid(), signal.SIGTERM)", Crashed(signal="SIGTERM")),
        (GROUP_KILLED, Crashed(signal="SIGKILL")),
        (ABORTED, Crashed(signal="SIGABRT")),
        (SEGFAULT, Crashed(signal="SIGSEGV")),
        pytest.param(
            "os.kill(os.getpid(), 40)",
            Crashed(signal="signal 40"),
            marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a signal 40"),
        ),
    ],
)
async def test_a_crash_tells_how_and_what_was_printed_before(
    bench: Bench, crash: str, outcome: Outcome
) -> None:
    finished = await bench.run(source_of(crash))
    assert finished.outcome == outcome
    assert finished.logs.startswith("at ")


@pytest.mark.parametrize("crash", [ALL_CLOSED, CHANNEL_CLOSED, NO_FRAME])
async def test_a_worker_without_a_channel_has_crashed(bench: Bench, crash: str) -> None:
    assert isinstance((await bench.run(source_of(crash))).outcome, Crashed)


@pytest.mark.parametrize(
    "crash",
    [EXIT, KILLED, ABORTED, SEGFAULT, ALL_CLOSED, CHANNEL_CLOSED, NO_FRAME, GROUP_KILLED, "os.kill(-1, 0)"],
)
async def test_neighbours_are_unharmed_and_the_next_attempt_runs(bench: Bench, crash: str) -> None:
    go = bench.folder / "go"
    neighbour = asyncio.create_task(bench.run(NEIGHBOUR % go))
    await bench.printed("neighbour ")
    code = bench.function(
        f"""
        import ctypes, os, signal, time
        def handler(event, context):
            if event["body"] is not None:
                {crash}
            return {{"statusCode": 200}}
        """
    )
    await bench.run(code, body=b"crash")
    assert response(await bench.run(code)).status == 200
    go.touch()
    assert response(await neighbour).body == b"unharmed"


@pytest.mark.parametrize("crash", [EXIT, KILLED, SEGFAULT, ALL_CLOSED, CHANNEL_CLOSED, OUT_OF_MEMORY])
async def test_a_crash_is_noticed_within_100_ms(bench: Bench, crash: str) -> None:
    code = bench.function(source_of(crash))
    delays_s = []
    for _ in range(20):  # the machine may have other things to do, but not every time
        await bench.run(code)
        delays_s.append(time.time() - float(bench.lines[-1].text.removeprefix("at ")))
        if delays_s[-1] < 0.1:
            return
    pytest.fail(f"It took {delays_s} seconds.")


ALLOCATE = """
    import os
    def handler(event, context):
        if event["body"] is None:
            return {"statusCode": 200, "body": str(os.getpid())}
        print("pid", os.getpid())
        kept = []
        while True:
            kept.append(bytearray(1 << 20))
    """


async def test_a_worker_out_of_memory_fails_its_attempt_and_is_not_used_again(bench: Bench) -> None:
    code = bench.function(ALLOCATE, memory_mib=64)
    assert (await bench.run(code, body=b"")).outcome == Crashed(detail="ran out of memory")
    exhausted = await bench.printed_pid("pid")
    assert int(await bench.text(code)) != exhausted


async def test_memory_is_limited_for_c_as_well(bench: Bench) -> None:
    finished = await bench.run(
        bench.function(
            """
            import ctypes
            def handler(event, context):
                libc = ctypes.CDLL(None)
                libc.malloc.restype = ctypes.c_void_p
                libc.malloc.argtypes = [ctypes.c_size_t]
                return {"statusCode": 200, "body": str(libc.malloc(128 << 20))}
            """,
            memory_mib=64,
        )
    )
    assert response(finished).body == b"None"


async def test_endless_recursion(bench: Bench) -> None:
    source = "def handler(event, context): return handler(event, context)"
    assert error(await bench.run(source)).type == "RecursionError"


async def test_a_fork_that_returns_as_well_is_no_second_result(bench: Bench) -> None:
    code = bench.function(
        """
        import os
        def handler(event, context):
            if event["body"] is not None:
                os.fork()
            return {"statusCode": 200, "body": str(os.getpid())}
        """
    )
    for _ in range(5):
        await bench.run(code, body=b"fork")
        assert response(await bench.run(code)).status == 200


async def test_threads_left_behind_do_not_keep_the_worker(bench: Bench) -> None:
    source = """
        import threading, time
        def handler(event, context):
            threading.Thread(target=time.sleep, args=(1000,)).start()
            return {"statusCode": 200}
        """
    assert response(await bench.run(source)).status == 200


async def test_streams_closed_or_replaced_by_the_handler(bench: Bench) -> None:
    code = bench.function(
        """
        import sys
        def handler(event, context):
            if sys.stdout is not None: sys.stdout.close()
            sys.stdout = sys.stderr = None
            return {"statusCode": 200}
        """
    )
    for _ in range(2):
        assert response(await bench.run(code)).status == 200


@pytest.mark.parametrize("options", [{}, {"mode": Mode.BACKGROUND}])
async def test_a_function_that_crashes_again_and_again_costs_itself_only(
    bench: Bench, options: dict[str, Any]
) -> None:
    crashing = bench.function(source_of(EXIT))
    healthy = bench.function("def handler(event, context): return {'statusCode': 200}")
    runs = [bench.run(crashing if number % 2 else healthy, **options) for number in range(4)]
    for _ in range(5):
        outcomes = [finished.outcome for finished in await asyncio.gather(*runs)]
        assert outcomes[1::2] == [Crashed(exit_status=3)] * 2
        assert not any(isinstance(outcome, Failed | Crashed | TimedOut) for outcome in outcomes[::2])
        runs = [bench.run(crashing if number % 2 else healthy, **options) for number in range(4)]
    for run in runs:
        run.close()

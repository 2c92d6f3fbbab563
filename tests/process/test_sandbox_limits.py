"""No attempt outlives its limit or its lease, whatever it does, nor does anything that it started."""

import asyncio
import signal
import time
from typing import Any

import pytest

from quarterhour.clock import boot_s
from quarterhour.invocation import Request
from quarterhour.outcome import TimedOut
from runner.sandbox.job import AttemptLost, Code
from runner.sandbox.pool import Attempt
from tests.process.sandboxes import LIMIT_S as LONG_S
from tests.process.sandboxes import Bench, alive, response
from tests.waiting import eventually

LIMIT_S = 0.5
SLEEP = "time.sleep(1000)"
SLEEP_IN_C = "while True: ctypes.CDLL(None).pause()"
SLEEP_HOLDING_EVERYTHING = "ctypes.PyDLL(None).sleep(1000)"  # PyDLL keeps the interpreter's lock
SPIN = "while True: pass"
AWAIT = "asyncio.run(asyncio.sleep(1000))"
# They say when they do not listen any more.
IGNORE = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(1000)"
MASK = "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64)); print('deaf', flush=True); time.sleep(1000)"
HANDLE = (
    "signal.signal(signal.SIGTERM, lambda *_: None); print('deaf', flush=True);"
    " ctypes.PyDLL(None).sleep(1000); time.sleep(1000)"
)
SWALLOW = """
            def stay(*_): raise ValueError
            signal.signal(signal.SIGTERM, stay)
            print("deaf", flush=True)
            while True:
                try: time.sleep(1000)
                except ValueError: pass
"""


def source_of(body: str) -> str:
    return f"""
        import asyncio, ctypes, os, signal, subprocess, sys, time
        def handler(event, context):
            {body}
        """


def limit_comes(bench: Bench, attempt: Attempt) -> None:
    """Have its limit come now, so that how long a worker takes to begin is no part of it."""
    assert attempt._worker is not None
    bench.sandbox.keep_moments(attempt._worker, limit_at=boot_s(), leased_until=None)


@pytest.mark.parametrize("body", [SLEEP, SLEEP_IN_C, SLEEP_HOLDING_EVERYTHING, SPIN, AWAIT])
async def test_the_limit_ends_whatever_blocks(bench: Bench, body: str) -> None:
    code = bench.function(
        source_of(f"if event['body'] is None: return {{'statusCode': 200}}\n            {body}")
    )
    await bench.run(code)  # so that there is a warm worker
    attempt = bench.attempt(code, body=b"", limit_s=LIMIT_S)
    started = time.monotonic()
    finished = await attempt.run()
    seconds = time.monotonic() - started
    assert finished.outcome == TimedOut(limit_s=LIMIT_S)
    assert LIMIT_S <= seconds < LIMIT_S + 15
    assert attempt._exit is not None
    assert attempt._exit.status == signal.SIGTERM, "it is killed no sooner than a second later"


@pytest.mark.parametrize("body", [IGNORE, MASK, HANDLE, SWALLOW])
async def test_who_does_not_listen_is_killed_a_second_later(bench: Bench, body: str) -> None:
    attempt = bench.attempt(source_of(body))
    running = asyncio.create_task(attempt.run())
    await bench.printed("deaf")
    limit_at = time.monotonic()
    limit_comes(bench, attempt)
    assert (await running).outcome == TimedOut(limit_s=LONG_S)
    assert 1 <= time.monotonic() - limit_at < 15
    assert attempt._exit is not None
    assert attempt._exit.status == signal.SIGKILL


async def test_an_import_that_blocks_is_bounded_as_well(bench: Bench) -> None:
    started = time.monotonic()
    finished = await bench.run("import time; time.sleep(1000)", limit_s=LIMIT_S)
    assert finished.outcome == TimedOut(limit_s=LIMIT_S)
    assert time.monotonic() - started < LIMIT_S + 15


async def test_a_handler_can_clean_up_at_its_limit_and_has_timed_out_all_the_same(bench: Bench) -> None:
    code = bench.function(
        """
        import signal, sys, time
        def handler(event, context):
            signal.signal(signal.SIGTERM, lambda *_: sys.exit("cleaned up"))
            try:
                time.sleep(1000)
            finally:
                print("remaining", context.get_remaining_time_in_millis())
        """
    )
    assert await logs_at_the_limit(bench, code) == "remaining 0\n"


async def logs_at_the_limit(bench: Bench, code: Code, **options: Any) -> str:
    """What an attempt has printed that reaches its limit; if that is nothing, in one of three tries.

    A machine that stalls may let no handler begin before its limit, nor end in the second after it.
    """
    for limit_s in (LIMIT_S, 4.0, 8.0):
        finished = await bench.run(code, limit_s=limit_s, **options)
        assert finished.outcome == TimedOut(limit_s=limit_s)
        if finished.logs:
            break
    return finished.logs


CHILDREN = """
    import os, signal, subprocess, sys, time
    def report(label):
        print(label, os.getpid(), flush=True)
    def stay(label):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        report(label)
        time.sleep(1000)
        os._exit(0)
    def handler(event, context):
        print("command", subprocess.Popen(["sleep", "1000"]).pid)
        if os.fork() == 0:
            stay("child")
        if os.fork() == 0:
            os.setsid()
            stay("session")
        if os.fork() == 0:
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    stay("daemon")
                os._exit(0)
            os._exit(0)
        if event["body"] is None:
            time.sleep(1000)
        while not os.path.exists(event["body"] or "/"):
            time.sleep(0.001)
        time.sleep(0.2)
        return {"statusCode": 200, "body": str(os.getpid())}
    """
LABELS = ("command", "child", "session", "daemon")


async def pids_of_children(bench: Bench) -> list[int]:
    return [await bench.printed_pid(label) for label in LABELS]


async def test_children_end_with_their_attempt_wherever_they_went(bench: Bench) -> None:
    attempt = bench.attempt(CHILDREN)
    running = asyncio.create_task(attempt.run())
    pids = await pids_of_children(bench)
    assert all(alive(pid) for pid in pids)
    limit_comes(bench, attempt)
    assert (await running).outcome == TimedOut(limit_s=LONG_S)
    await eventually(lambda: not any(map(alive, pids)), deadline_s=20, what="the children were gone")


async def test_what_a_successful_attempt_leaves_behind_is_killed(bench: Bench) -> None:
    code = bench.function(CHILDREN)
    running = asyncio.create_task(bench.run(code, body=b""))
    pids = await pids_of_children(bench)
    worker = int(response(await running).body)
    await eventually(lambda: not any(map(alive, [worker, *pids])), deadline_s=20, what="all were gone")


async def test_neighbours_of_what_is_killed_are_unharmed(bench: Bench) -> None:
    go = bench.folder / "go"
    neighbour = asyncio.create_task(
        bench.run(
            f"""
            import os, time
            def handler(event, context):
                if (child := os.fork()) == 0:
                    os.setsid()
                    while not os.path.exists({str(go)!r}): time.sleep(0.001)
                    os._exit(7)
                print("neighbour", child)
                return {{"statusCode": 200, "body": str(os.waitpid(child, 0)[1])}}
            """
        )
    )
    await bench.printed("neighbour ")
    attempt = bench.attempt(CHILDREN)
    running = asyncio.create_task(attempt.run())
    await pids_of_children(bench)
    limit_comes(bench, attempt)
    assert (await running).outcome == TimedOut(limit_s=LONG_S)
    go.touch()
    assert response(await neighbour).body == str(7 << 8).encode()


async def test_the_end_of_a_lease_kills_although_nothing_else_happens(bench: Bench) -> None:
    await bench.run("def handler(event, context): return {'statusCode': 200}")
    code = bench.function(source_of(f"print('pid', os.getpid()); {IGNORE}"))
    for lease_s in (1.2, 5.0, 5.0):  # a machine that stalls is late, too, with the handler or with seeing it
        bench.lines.clear()
        ends_at = boot_s() + lease_s
        with pytest.raises(AttemptLost) as lost:
            await bench.run(code, lease_s=lease_s)
        dead_in_time = boot_s() < ends_at
        assert lost.value.reason == "lease"
        if bench.lines:
            assert not alive(await bench.printed_pid("pid"))
            if dead_in_time:
                return
    pytest.fail("it is dead when the lease ends, not later")


async def test_a_renewed_lease_lasts_longer(bench: Bench) -> None:
    code = bench.function(source_of("time.sleep(float(event['body'])); return {'statusCode': 200}"))
    text = Request(method="POST", path="/", headers=(("content-type", "text/plain"),))
    for lease_s in (1.5, 5.0, 10.0):  # where the test itself is too late with the renewal, it proves nothing
        ends_at = boot_s() + lease_s
        attempt = bench.attempt(code, lease_s=lease_s, body=b"%f" % (lease_s + 0.5), request=text)
        running = asyncio.create_task(attempt.run())
        await asyncio.sleep(0.2)  # as a renewal would come, some time into the lease
        attempt.extend(boot_s() + 60)
        if boot_s() < ends_at - 0.6:  # it is ended half a second before
            assert response(await running).status == 200
            return
        await asyncio.gather(running, return_exceptions=True)
    pytest.fail("No lease was renewed in time.")


async def test_a_lease_renewed_before_a_worker_was_found_counts(bench: Bench) -> None:
    attempt = bench.attempt(source_of("time.sleep(0.5); return {'statusCode': 200}"), lease_s=0.1)
    attempt.extend(boot_s() + 30)
    assert response(await attempt.run()).status == 200


async def test_a_lease_that_has_ended_before_the_start_runs_nothing(bench: Bench) -> None:
    code = bench.function(source_of("print('ran'); return {'statusCode': 200}"))
    with pytest.raises(AttemptLost) as lost:
        await bench.run(code, lease_s=-1)
    assert lost.value.reason == "lease"
    await bench.run(code)
    assert len(bench.lines) == 1


async def test_stop_ends_an_attempt_without_an_outcome(bench: Bench) -> None:
    attempt = bench.attempt(source_of(f"print('pid', os.getpid()); {IGNORE}"))
    running = asyncio.create_task(attempt.run())
    pid = await bench.printed_pid("pid")
    attempt.stop()
    attempt.stop()
    with pytest.raises(AttemptLost) as lost:
        await running
    assert lost.value.reason == "stopped"
    assert not alive(pid)


async def test_an_attempt_stopped_before_its_start_does_not_run(bench: Bench) -> None:
    attempt = bench.attempt(source_of("print('ran')"))
    attempt.stop()
    with pytest.raises(AttemptLost, match="stopped"):
        await attempt.run()
    await bench.run(source_of("return {'statusCode': 200}"))
    assert bench.lines == []


async def test_a_late_stop_or_renewal_does_no_harm(bench: Bench) -> None:
    code = bench.function(source_of("return {'statusCode': 200, 'body': str(os.getpid())}"))
    first = bench.attempt(code)
    response(await first.run())
    first.extend(boot_s() - 10)
    first.stop()
    assert response(await bench.run(code)).status == 200


async def test_a_cancelled_run_ends_its_worker(bench: Bench) -> None:
    running = asyncio.create_task(bench.run(source_of(f"print('pid', os.getpid()); {IGNORE}")))
    pid = await bench.printed_pid("pid")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await eventually(lambda: not alive(pid), what="the worker was gone")

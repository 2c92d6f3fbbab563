"""Which worker makes an attempt, and how long workers stay."""

import asyncio
import errno
import os
import signal
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from quarterhour.clock import SystemClock
from quarterhour.errors import SettingsError
from quarterhour.outcome import Crashed
from runner.sandbox.job import AttemptLost, Code
from runner.sandbox.pool import Sandbox
from runner.sandbox.runtime import Launch
from runner.sandbox.runtimes import RUNTIMES
from tests.node import node
from tests.process.sandboxes import Bench, alive, error, open_bench, response, settings
from tests.system import descendants
from tests.waiting import eventually

# With a body it waits for the file `go`.
PID = """
    import os, time
    from pathlib import Path
    def handler(event, context):
        if event["body"] is not None:
            print("waits", flush=True)
        while event["body"] is not None and not Path(__file__).with_name("go").exists():
            time.sleep(0.01)
        return {"statusCode": 200, "body": str(os.getpid())}
    """


async def waiting(bench: Bench, count: int) -> None:
    """Until so many handlers have begun to wait."""
    await eventually(lambda: len(bench.lines) == count, what=f"{count} handlers wait")


async def test_an_interpreter_that_is_none_is_named_at_the_start() -> None:
    sandbox = Sandbox(settings(python="/bin/false"), clock=SystemClock(), on_line=print)
    with pytest.raises(SettingsError, match="/bin/false cannot run functions"):
        await sandbox.__aenter__()
    await sandbox.__aexit__(None, None, None)


async def test_threads_do_not_use_up_the_memory_limit(bench: Bench) -> None:
    code = bench.function(
        """
        import threading
        def handler(event, context):
            go_on = threading.Event()
            threads = [threading.Thread(target=go_on.wait) for _ in range(32)]
            for thread in threads:
                thread.start()
            go_on.set()
            for thread in threads:
                thread.join()
            return {"statusCode": 200, "body": "all"}
        """,
        memory_mib=128,
    )
    assert await bench.text(code) == "all"


ANSWER = "def handler(event, context): return {{'statusCode': 200, 'body': '{}'}}"


async def test_consecutive_attempts_of_a_function_share_a_worker(bench: Bench) -> None:
    code = bench.function(PID)
    assert len({await bench.text(code) for _ in range(5)}) == 1


async def test_modules_stay_loaded_between_attempts(bench: Bench) -> None:
    code = bench.function(
        """
        count = 0
        def handler(event, context):
            global count
            count += 1
            return {"statusCode": 200, "body": str(count)}
        """
    )
    assert [await bench.text(code) for _ in range(3)] == ["1", "2", "3"]


async def test_functions_and_versions_have_workers_of_their_own(bench: Bench) -> None:
    first = bench.function(PID, name="one")
    second = bench.function(PID, name="two")
    newer = bench.function(PID, name="one", generation=2)
    assert len({await bench.text(code) for code in (first, second, newer)}) == 3


async def test_attempts_at_the_same_time_have_a_worker_each(bench: Bench) -> None:
    code = bench.function(PID)
    runs = [asyncio.create_task(bench.text(code, body=b"")) for _ in range(4)]
    await waiting(bench, 4)
    (bench.folder / "go").touch()
    assert len(set(await asyncio.gather(*runs))) == 4


async def test_the_worker_that_was_idle_last_is_used_first(bench: Bench) -> None:
    code = bench.function(PID)
    running = asyncio.create_task(bench.text(code, body=b""))
    await waiting(bench, 1)
    quick = await bench.text(code)
    (bench.folder / "go").touch()
    slow = await running
    assert slow != quick
    assert [await bench.text(code) for _ in range(3)] == [slow] * 3


async def test_a_full_pool_retires_what_was_idle_longest(tmp_path: Path) -> None:
    async with open_bench(tmp_path, settings(workers_max=2)) as bench:
        codes = [bench.function(PID) for _ in range(3)]
        first, second, third = [int(await bench.text(code)) for code in codes]
        await eventually(lambda: not alive(first), what="the one idle longest was retired")
        assert alive(second)
        assert alive(third)
        assert int(await bench.text(codes[1])) == second
        assert int(await bench.text(codes[0])) not in {first, second, third}


async def test_an_idle_worker_that_dies_is_replaced(bench: Bench) -> None:
    code = bench.function(PID)
    pid = int(await bench.text(code))
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not alive(pid), what="the worker was gone")
    for _ in range(2):
        finished = await bench.run(code)
        if not isinstance(finished.outcome, Crashed):  # in the moment before its end is heard of
            assert int(response(finished).body) != pid


async def test_what_an_idle_worker_does_is_nobodys_result(bench: Bench) -> None:
    code = bench.function(
        """
        import os, threading, time
        from pathlib import Path
        def late():
            while not Path(__file__).with_name("go").exists():
                time.sleep(0.01)
            os.write(3, (30).to_bytes(4, "big") + (26).to_bytes(4, "big") + b'{"kind":"returned"}       ')
        def handler(event, context):
            threading.Thread(target=late).start()
            return {"statusCode": 200, "body": str(os.getpid())}
        """
    )
    pid = int(await bench.text(code))
    (bench.folder / "go").touch()
    await eventually(lambda: not alive(pid), what="the worker was retired")
    (bench.folder / "go").unlink()
    assert int(await bench.text(code)) != pid


async def test_workers_idle_for_too_long_are_retired(tmp_path: Path) -> None:
    async with open_bench(tmp_path, replace(settings(), idle_s=0.2)) as bench:
        pid = int(await bench.text(PID))
        await eventually(lambda: not alive(pid), deadline_s=20, what="the worker was retired")
        assert response(await bench.run(PID)).status == 200


def descriptors_of(process: int | str) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def one_pipe_and_no_more() -> Mock:
    """What `os.pipe` is when only two more files may be open."""
    return Mock(side_effect=[os.pipe(), OSError(errno.EMFILE, "Too many open files")])


async def test_a_worker_that_cannot_be_opened_leaves_nothing_open(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, open_before = len(bench.sandbox._table._free), descriptors_of("self")
    with monkeypatch.context() as full:
        full.setattr(os, "pipe", one_pipe_and_no_more())
        with pytest.raises(AttemptLost) as lost:
            await bench.run(PID)
    assert lost.value.reason == "worker"
    assert len(bench.sandbox._table._free) == rows
    assert descriptors_of("self") == open_before
    assert await bench.text(PID)


async def test_a_spare_worker_that_cannot_be_opened_ends_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = bench.function(PID)
    with monkeypatch.context() as full:
        full.setattr(os, "pipe", pipe := one_pipe_and_no_more())
        await bench.sandbox.keep([replace(code, launch=Launch(command=("/bin/sleep", "1000")))])
        await eventually(lambda: pipe.call_count == 2, what="a spare one was to be opened")
    assert await bench.text(code)


async def test_a_thousand_attempts_leave_nothing_open(bench: Bench) -> None:
    code = bench.function(PID)
    crash = bench.function("import os\ndef handler(event, context): os._exit(1)")
    await bench.run(code)
    await bench.run(crash)
    await eventually(lambda: len(descendants(bench.guard_pid)) == 1, what="one worker was there")
    before = descriptors_of("self")
    for _ in range(20):
        await bench.run(crash)
        for _ in range(49):
            await bench.run(code)
    await eventually(lambda: descriptors_of("self") <= before, what="no descriptor was left open")
    if os.geteuid() == 0:  # nobody else can look into a guard
        assert descriptors_of(bench.guard_pid) <= 12, "the guard keeps nothing of its workers"


async def test_what_was_read_runs_whatever_is_saved_meanwhile(bench: Bench) -> None:
    old = bench.function(ANSWER.format("old"), name="one")
    assert await bench.text(old) == "old"
    new = bench.function(ANSWER.format("new"), name="one")
    old.path.write_text("half a sa")
    assert await bench.text(new) == "new"
    await asyncio.gather(*(bench.run("def handler(e, c): return {'statusCode': 200}") for _ in range(8)))
    assert await bench.text(old) == "old", "from a worker of its own: the first one has been retired"
    old.path.unlink()
    assert await bench.text(replace(old, generation=2)) == "old"


async def test_workers_of_code_that_is_served_no_more_end(bench: Bench) -> None:
    idle, busy, kept = (bench.function(PID) for _ in range(3))
    idle_pid, kept_pid = int(await bench.text(idle)), int(await bench.text(kept))
    running = asyncio.create_task(bench.text(busy, body=b""))
    served = bench.sandbox._workers  # to count processes is not enough: the guard has others now and then
    await eventually(lambda: any(one.code == busy for one in served.values()), what="it has a worker")
    await bench.sandbox.keep([kept])
    await eventually(lambda: not alive(idle_pid), what="the idle one has ended")
    (bench.folder / "go").touch()
    busy_pid = int(await running)
    await eventually(lambda: not alive(busy_pid), what="the busy one has ended after its attempt")
    assert int(await bench.text(kept)) == kept_pid


async def test_a_traceback_quotes_what_ran(bench: Bench) -> None:
    code = bench.function("# ü\ndef handler(event, context):\n    raise ValueError('here')  # it ran\n")
    code.path.write_text("\n\n\n\nsomething else\n")
    trace = "\n".join(error(await bench.run(code)).trace)
    assert "raise ValueError('here')  # it ran" in trace
    assert str(code.path) in trace


async def test_the_module_knows_its_file_and_leaves_no_cache(bench: Bench) -> None:
    code = bench.function(
        "from pathlib import Path\n"
        "def handler(event, context):\n"
        "    return {'statusCode': 200, 'body': __file__ + ' ' + __spec__.origin}\n"
    )
    assert await bench.text(code) == f"{code.path} {code.path}"
    assert not list(bench.folder.glob("__pycache__/*"))


async def test_the_sandbox_can_be_left_while_attempts_run(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench:
        running = asyncio.create_task(
            bench.run("import time\ndef handler(e, c): print('on'); time.sleep(1000)")
        )
        await bench.printed("on")
    with pytest.raises((AttemptLost, asyncio.CancelledError)):
        async with asyncio.timeout(30):
            await running


NODE = "exports.handler = async () => ({ statusCode: 200, body: String(process.pid) })"


async def spare_pid(bench: Bench, code: Code) -> int:
    """The process of the spare worker that the code will get, once there are two spare ones."""
    spares = bench.sandbox._spares

    def forked() -> int | None:
        spare = spares.get(code.program)
        if len(spares) < 2 or spare is None or spare.guard is None:
            return None
        return spare.guard._pids.get(spare.number)  # the guard says so when it has forked it

    pid = await eventually(forked, what="two spare ones are there")
    assert pid is not None
    return pid


async def test_a_worker_of_a_program_is_started_before_anybody_asks(bench: Bench) -> None:
    node()
    launch = RUNTIMES["node"].launch(installed=None, memory_mib=512)
    first, second = (bench.function(NODE, name=name, suffix=".js", launch=launch) for name in ("a", "b"))
    other = bench.function(NODE, suffix=".js", launch=launch, environment=(("A", "1"),))
    await bench.sandbox.keep([first, second, other])
    for code in (first, second):  # one takes it, and there is another one for the next
        spare = await spare_pid(bench, code)
        assert int(await bench.text(code)) == spare
    await bench.sandbox.keep([])
    await eventually(lambda: not descendants(bench.guard_pid), what="nothing is kept that nobody needs")


async def test_a_program_that_cannot_be_started_is_the_attempts_failure(bench: Bench) -> None:
    launch = Launch(command=("/nowhere/to/be/found",))
    code = bench.function(NODE, suffix=".js", launch=launch)
    await bench.sandbox.keep([code])
    finished = await bench.run(code)
    assert finished.outcome == Crashed(exit_status=127)
    assert finished.logs == "/nowhere/to/be/found cannot be started: No such file or directory.\n"


async def test_a_program_that_takes_too_much_memory_is_ended(bench: Bench) -> None:
    node()
    launch = RUNTIMES["node"].launch(installed=None, memory_mib=128)
    source = """
        exports.handler = async () => {
            const taken = [];
            for (;;) {
                taken.push(Buffer.alloc(1024 * 1024, 1)); // which is no part of the heap
                await new Promise((resolve) => setTimeout(resolve, 1));
            }
        };
        """
    code = bench.function(source, suffix=".js", launch=launch, memory_mib=128)
    assert (await bench.run(code)).outcome == Crashed(detail="ran out of memory")

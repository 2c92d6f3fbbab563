"""The choice of a runner, and what becomes of calls that do not come back."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.calls import MARGIN_S, Caller, choose
from gateway.directory import ROLL_CALL_S, SILENCE_S, Runners
from gateway.problems import Code, Problem
from quarterhour.broker.port import Answer, Beat, Stream
from quarterhour.errors import BrokerUnavailable, RunnerGone
from quarterhour.function import Manifest, Mode
from quarterhour.invocation import Invocation, Request
from quarterhour.outcome import Succeeded
from quarterhour.reply import Reply
from quarterhour.retry import RetryPolicy
from tests.waiting import eventually

LIMIT_S = 5.0
MANIFEST = Manifest(name="f", runtime="python", background=False, timeout_s=LIMIT_S, retry=RetryPolicy())
INVOCATION = Invocation(
    id="id",
    function="f",
    mode=Mode.SYNCHRONOUS,
    attempt=1,
    accepted_at=0,
    due_at=0,
    request=Request(method="GET", path="/"),
    body=None,
)


def test_nobody_is_chosen_from_nobody() -> None:
    assert choose([], {}, []) is None
    assert choose(["a"], {}, ["a"]) is None


def test_the_runner_with_the_fewest_calls_is_chosen() -> None:
    assert choose(["a", "b", "c"], {"a": [1, 2], "b": [1], "c": [1, 2]}, []) == "b"
    assert choose(["a", "b", "c"], {"a": [1, 2], "b": [1]}, []) == "c"
    assert choose(["a", "b", "c"], {"a": [1, 2], "b": [1], "c": [1, 2, 3]}, ["b"]) == "a"


def test_of_equals_the_one_called_longest_ago_is_chosen() -> None:
    assert choose(["a", "b", "c"], {"b": [], "c": [], "a": []}, []) == "b"
    assert choose(["a", "b", "c"], {"b": [], "a": []}, []) == "c"


class FakeCalls:
    """A broker whose calls the test answers."""

    def __init__(self, call: Callable[[str], Awaitable[Reply]]) -> None:
        self.asked: list[str] = []
        self._call = call

    async def call(self, runner: str, invocation: Invocation) -> Reply:
        self.asked.append(runner)
        return await self._call(runner)

    async def serve(self, runner: str, take: Callable[[Invocation, bytes, Answer], None]) -> None:
        raise NotImplementedError

    async def stop_serving(self) -> None:
        raise NotImplementedError


async def never(_: str) -> Reply:
    await asyncio.Event().wait()
    return Succeeded()


class Bench:
    """A caller with a clock of the test, and runners that live."""

    def __init__(self, call: Callable[[str], Awaitable[Reply]], *names: str) -> None:
        self.now = 100.0
        self.calls = FakeCalls(call)
        self.runners = Runners()
        self.caller = Caller(self.calls, self.runners, lambda: self.now)
        self.beat(*names)

    async def call(self) -> object:
        async def relay(_: Stream) -> None:
            raise AssertionError

        return await self.caller.call(INVOCATION, MANIFEST, relay)

    def beat(self, *names: str) -> None:
        for name in names:
            self.runners.beat(Beat(runner=name, functions=("f",), slots=1), self.now)

    def pass_time(self, seconds: float, *beating: str) -> None:
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            self.beat(*beating)
            self.caller.look()


async def test_calls_take_turns() -> None:
    async def succeed(_: str) -> Reply:
        return Succeeded()

    bench = Bench(succeed, "a", "b", "c")
    for _ in range(6):
        assert await bench.call() == Succeeded()
    assert sorted(bench.calls.asked[:3]) == sorted(bench.calls.asked[3:]) == ["a", "b", "c"]


async def problem_after(bench: Bench, seconds: float, *beating: str) -> Problem:
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(bench.call())
        await eventually(lambda: bench.calls.asked)
        bench.pass_time(seconds, *beating)
        result = await asyncio.wait_for(call, 20)
    assert isinstance(result, Problem)
    return result


async def test_a_call_of_a_silent_runner_is_lost_and_not_given_to_another() -> None:
    bench = Bench(never, "a")
    problem = await problem_after(bench, SILENCE_S + 1, "b")
    assert problem.code is Code.RUNNER_LOST
    assert bench.calls.asked == ["a"]


async def test_a_call_is_lost_although_its_runner_is_heard_again_the_moment_after() -> None:
    bench = Bench(never, "a")
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(bench.call())
        await eventually(lambda: bench.calls.asked)
        bench.pass_time(SILENCE_S + 1, "b")
        bench.beat("a")
        problem = await asyncio.wait_for(call, 20)
    assert isinstance(problem, Problem)
    assert problem.code is Code.RUNNER_LOST


async def test_a_call_of_a_living_runner_is_bounded() -> None:
    bench = Bench(never, "a")
    problem = await problem_after(bench, LIMIT_S + MARGIN_S + 1, "a")
    assert problem.code is Code.NO_ANSWER


async def test_a_call_of_a_living_runner_has_its_time() -> None:
    go_on = asyncio.Event()

    async def later(_: str) -> Reply:
        await go_on.wait()
        return Succeeded()

    bench = Bench(later, "a")
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(bench.call())
        await eventually(lambda: bench.calls.asked)
        bench.pass_time(LIMIT_S + MARGIN_S - 1, "a")
        bench.runners.refuses("a")  # another call found it gone; this one is still under way
        bench.pass_time(0.5)
        await asyncio.sleep(0)
        go_on.set()
    assert call.result() == Succeeded()


async def test_each_runner_that_is_gone_is_asked_once() -> None:
    async def gone(runner: str) -> Reply:
        raise RunnerGone(runner)

    bench = Bench(gone, "a", "b")
    result = await bench.call()
    assert isinstance(result, Problem)
    assert result.code is Code.NO_RUNNER
    assert sorted(bench.calls.asked) == ["a", "b"]
    assert list(bench.runners.serving("f")) == []


async def test_an_absent_broker_is_not_the_runners_fault() -> None:
    async def away(_: str) -> Reply:
        message = "Away."
        raise BrokerUnavailable(message)

    bench = Bench(away, "a", "b")
    with pytest.raises(BrokerUnavailable):
        await bench.call()
    assert len(bench.calls.asked) == 1
    assert list(bench.runners.serving("f")) == ["a", "b"]


async def test_a_cancelled_call_leaves_nothing_behind() -> None:
    bench = Bench(never, "a")
    call = asyncio.ensure_future(bench.call())
    await eventually(lambda: bench.calls.asked)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    bench.pass_time(SILENCE_S + 1)
    assert bench.caller._under_way == {}


async def test_a_gateway_that_has_only_begun_to_listen_waits_for_runners_to_be_heard() -> None:
    async def succeed(_: str) -> Reply:
        return Succeeded()

    bench = Bench(succeed)
    bench.runners.listen(bench.now)
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(bench.call())
        await asyncio.sleep(0.05)
        assert not call.done()
        bench.beat("a")
    assert call.result() == Succeeded()


async def test_it_does_not_wait_for_long() -> None:
    bench = Bench(never)
    bench.runners.listen(bench.now)
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(bench.call())
        await asyncio.sleep(0.05)
        bench.now += ROLL_CALL_S
    result = call.result()
    assert isinstance(result, Problem)
    assert result.code is Code.NO_RUNNER

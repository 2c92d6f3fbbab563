"""The gateway's view of functions and runners, told what time it is."""

from collections.abc import Iterable

from gateway.directory import SILENCE_S, Functions, Runners
from quarterhour.broker.port import Beat
from quarterhour.function import Manifest
from quarterhour.retry import RetryPolicy


def beat(runner: str, *functions: str, draining: bool = False) -> Beat:
    return Beat(runner=runner, functions=functions, slots=1, draining=draining)


def manifest(name: str, timeout_s: float = 1) -> Manifest:
    return Manifest(name=name, runtime="python", background=False, timeout_s=timeout_s, retry=RetryPolicy())


def told(runners: Runners, moments: Iterable[float]) -> list[str]:
    return [runner for moment in moments for runner in runners.look(moment)]


def quarters(start: float, end: float) -> list[float]:
    return [start + step / 4 for step in range(int((end - start) * 4) + 1)]


def test_runners_are_found_by_what_they_serve() -> None:
    runners = Runners()
    assert runners.beat(beat("a", "f", "g"), 0.0)
    assert runners.beat(beat("b", "g"), 0.0)
    assert not runners.beat(beat("b", "g"), 1.0)
    assert (list(runners.serving("f")), list(runners.serving("g"))) == (["a"], ["a", "b"])
    assert list(runners.serving("h")) == []


def test_a_beat_may_change_what_is_served() -> None:
    runners = Runners()
    runners.beat(beat("a", "f"), 0.0)
    runners.beat(beat("a", "g"), 1.0)
    assert (list(runners.serving("f")), list(runners.serving("g"))) == ([], ["a"])


def test_a_silent_runner_is_lost_after_three_seconds_and_a_beat_brings_it_back() -> None:
    runners = Runners()
    runners.beat(beat("a", "f"), 10.0)
    runners.beat(beat("b", "f"), 12.0)
    assert told(runners, quarters(10.0, 10.0 + SILENCE_S)) == []
    assert told(runners, [10.0 + SILENCE_S + 0.1]) == ["a"]
    assert not runners.lives("a")
    assert list(runners.serving("f")) == ["b"]
    runners.beat(beat("a", "f"), 14.0)
    assert runners.lives("a")


def test_a_draining_runner_lives_but_takes_no_calls() -> None:
    runners = Runners()
    runners.beat(beat("a", "f"), 0.0)
    runners.beat(beat("a", "f", draining=True), 1.0)
    assert runners.lives("a")
    assert list(runners.serving("f")) == []


def test_a_runner_that_refuses_is_left_alone_until_its_next_beat() -> None:
    runners = Runners()
    runners.beat(beat("a", "f"), 0.0)
    runners.refuses("a")
    runners.refuses("unknown")
    assert runners.lives("a")
    assert list(runners.serving("f")) == []
    runners.beat(beat("a", "f"), 1.0)
    assert list(runners.serving("f")) == ["a"]


def test_a_pause_of_this_process_is_nobodys_silence() -> None:
    runners = Runners()
    runners.beat(beat("a", "f"), 0.0)
    assert told(runners, quarters(0.0, 1.0)) == []
    assert runners.look(21.0) == []  # it stood still for 20 s
    assert told(runners, quarters(21.25, 22.75)) == []
    assert told(runners, quarters(23.0, 25.0)) == ["a"]  # and now the runner really is silent


def test_functions_say_what_is_new_and_what_is_gone() -> None:
    functions = Functions()
    assert not functions.ready
    one, two = manifest("one"), manifest("two")
    assert functions.replace({"one": one, "two": two}) == ([one, two], [])
    assert functions.ready
    changed = manifest("two", timeout_s=2)
    assert functions.replace({"two": changed}) == ([changed], ["one"])
    assert functions.replace({"two": changed}) == ([], [])
    assert dict(functions.by_name) == {"two": changed}

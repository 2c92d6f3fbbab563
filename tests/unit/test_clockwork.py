"""The runner's clockwork: it rings when a schedule fires, once for each moment."""

from collections.abc import Collection

from quarterhour.function import Manifest
from quarterhour.retry import RetryPolicy
from runner.clockwork import NAP_S_MAX, Clockwork


class Clock:
    def __init__(self) -> None:
        self.moment = 1000.0

    def now(self) -> float:
        return self.moment

    def boot(self) -> float:
        return self.moment


def function(name: str, schedule: str | None) -> Manifest:
    return Manifest(
        name=name, runtime="python", background=False, timeout_s=1, retry=RetryPolicy(), schedule=schedule
    )


def test_it_rings_for_what_fires_and_sleeps_until_the_next() -> None:
    clock, rung = Clock(), list[set[str]]()

    def ring(names: Collection[str]) -> None:
        rung.append(set(names))

    clockwork = Clockwork(ring, clock)
    assert clockwork.tick() == NAP_S_MAX
    clockwork.serve([function("a", "*/2 * * * * *"), function("b", "*/5 * * * * *"), function("c", None)])
    seen = {}
    for tenths in range(60):
        clock.moment = 1000.0 + tenths / 10
        before = len(rung)
        pause_s = clockwork.tick()
        assert 0 < pause_s <= NAP_S_MAX
        if len(rung) > before:
            seen[clock.moment] = rung[-1]
    assert seen == {1002.0: {"a"}, 1004.0: {"a"}, 1005.0: {"b"}}
    clock.moment = 1005.5
    assert clockwork.tick() == 0.5
    clockwork.serve([function("b", "*/5 * * * * *")])
    clock.moment = 1100.0  # the machine slept: one ring for all that was missed
    clockwork.tick()
    assert rung[-1] == {"b"}
    assert len(rung) == 4

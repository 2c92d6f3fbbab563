"""The gateway's view of the world: which functions there are, and which runners live.

`Functions` and `Runners` are pure and are told everything, the time included; `watch_functions` and
`watch_runners` are the tasks that tell them. Nobody here calls a runner or decides about a request.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType

import structlog

from gateway.routes import Routes
from quarterhour.broker.port import Beat, Directory
from quarterhour.errors import BrokerUnavailable
from quarterhour.function import Manifest

__all__ = ["SILENCE_S", "Functions", "Runners", "watch_functions", "watch_runners"]

SILENCE_S = 3.0  # a runner that was not heard for so long is lost
REREAD_S = 5.0
AGAIN_S = 0.5
STALL_S = 1.0
ROLL_CALL_S = 1.0  # whoever lives answers it within this, or beats anyway

log = structlog.get_logger()


class Functions:
    """The announced functions, as last read."""

    def __init__(self) -> None:
        self.by_name: Mapping[str, Manifest] = MappingProxyType({})
        self.routes = Routes(())
        self.ready = False

    def replace(self, manifests: Mapping[str, Manifest]) -> tuple[list[Manifest], list[str]]:
        """Take over a new reading; returns what is new or changed, and the names that are gone."""
        old = self.by_name
        new = [manifest for name, manifest in manifests.items() if old.get(name) != manifest]
        gone = [name for name in old if name not in manifests]
        self.by_name = MappingProxyType(dict(manifests))
        if new or gone:
            self.routes = Routes(manifests.values())
        self.ready = True
        return new, gone


class Runners:
    """The runners by their beats. Moments are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._beats: dict[str, Beat] = {}
        self._heard_at: dict[str, float] = {}
        self._refusing: set[str] = set()
        self._serving: dict[str, list[str]] = {}
        self._looked_at: float | None = None
        self._listening_since: float | None = None

    def listen(self, now: float) -> None:
        """From now on runners are heard."""
        self._listening_since = now

    def may_be_unheard(self, now: float) -> bool:
        """Whether a runner may live that was not heard yet: nobody has listened for long."""
        return self._listening_since is not None and now < self._listening_since + ROLL_CALL_S

    def beat(self, beat: Beat, now: float) -> bool:
        """Take note of a sign of life; returns whether the runner was unknown."""
        before = self._beats.get(beat.runner)
        self._heard_at[beat.runner] = now
        if before == beat and beat.runner not in self._refusing:
            return False
        self._beats[beat.runner] = beat
        self._refusing.discard(beat.runner)
        self._index()
        return before is None

    def refuses(self, runner: str) -> None:
        """The runner takes no calls now; its next beat tells more. It may still be busy with earlier ones."""
        if runner in self._beats:
            self._refusing.add(runner)
            self._index()

    def look(self, now: float) -> list[str]:
        """Forget the runners that went silent, and return them. Called several times a second.

        Time in which this process itself did not get to run counts against nobody: the beats that
        came meanwhile are still to be read.
        """
        if self._looked_at is not None and (stall_s := now - self._looked_at) > STALL_S:
            for runner in self._heard_at:
                self._heard_at[runner] = min(now, self._heard_at[runner] + stall_s)
        self._looked_at = now
        silent = [runner for runner, heard_at in self._heard_at.items() if now - heard_at > SILENCE_S]
        for runner in silent:
            del self._beats[runner], self._heard_at[runner]
            self._refusing.discard(runner)
        if silent:
            self._index()
        return silent

    def serving(self, function: str) -> Collection[str]:
        """The live runners that take calls of the function."""
        return self._serving.get(function, ())

    @property
    def served(self) -> AbstractSet[str]:
        """The functions of which a live runner takes calls."""
        return self._serving.keys()

    def lives(self, runner: str) -> bool:
        """Whether the runner was heard lately; a draining one is alive, too."""
        return runner in self._beats

    @property
    def beats(self) -> Collection[Beat]:
        """The last beat of every live runner."""
        return self._beats.values()

    def _index(self) -> None:
        self._serving = {}
        for beat in self._beats.values():
            if not beat.draining and beat.runner not in self._refusing:
                for function in beat.functions:
                    self._serving.setdefault(function, []).append(beat.runner)


async def watch_functions(
    broker: Directory, functions: Functions, changed: Callable[[list[Manifest], list[str]], None]
) -> None:
    """Keep `functions` up to date, and say what is `changed(new, gone)`."""
    away = False
    while True:
        try:
            manifests, complaints = await broker.functions(), functions.routes.complaints
            new, gone = functions.replace(manifests)
            if new or gone:
                changed(new, gone)
                log.info("functions_changed", known=sorted(functions.by_name), gone=gone)
            for text in functions.routes.complaints:
                if text not in complaints:
                    log.warning("routes", text=text)
            away = False
            await broker.function_changes(REREAD_S)
        except BrokerUnavailable as error:
            if not away:
                log.warning("functions_not_read", why=str(error))
            away = True
            await asyncio.sleep(AGAIN_S)


async def watch_runners(broker: Directory, runners: Runners, now: Callable[[], float]) -> None:
    """Keep `runners` up to date. Who went silent is for `Runners.look` to say."""
    while True:
        runners.listen(now())
        try:
            async for beat in broker.beats():
                if runners.beat(beat, now()):
                    log.info("runner_heard", runner=beat.runner, functions=len(beat.functions))
        except BrokerUnavailable as error:
            log.warning("runners_not_heard", why=str(error))
        await asyncio.sleep(AGAIN_S)

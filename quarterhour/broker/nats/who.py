"""Asking who runs an invocation: every runner hears the question and answers, be it that it does not.

Once a second a question is waited for until everybody must have answered. Who has answered then is known,
and as soon as the same have answered the next question, nobody else is waited for. If nobody has, nothing
is known. In doubt others may just have come back, and their answers come after those of the known, our own
among them: so there the known have to be waited for as long as anybody who is well takes to answer.
"""

import asyncio
from collections.abc import Callable

import orjson

from quarterhour.broker.names import invocation_token
from quarterhour.broker.nats.layout import Layout
from quarterhour.broker.nats.link import Link, Msg, has_status
from quarterhour.broker.nats.stream import Stream
from quarterhour.broker.port import Run
from quarterhour.clock import Clock

__all__ = ["Who"]

ANSWER_S = 0.12
# Where work may be started on the strength of a silence, and the servers may have forgotten who has it.
ANSWER_IN_DOUBT_S = 1.0
KNOWN_S = 1.0


class Who:
    """Asks, and answers."""

    def __init__(self, link: Link, layout: Layout, stream: Stream, clock: Clock) -> None:
        """Questions over `link`."""
        self._link = link
        self._layout = layout
        self._stream = stream
        self._clock = clock
        self._answering: frozenset[str] = frozenset()
        self._known_until = 0.0  # boot s
        link.when_away.append(self._forget)

    async def runs_surely(self, invocation_id: str) -> Run | None:
        """As `runs`, for somebody who would start it otherwise."""
        if self._link.recovering or self._stream.forgets_unseen:
            return await self.runs(invocation_id, at_least_s=ANSWER_S, answer_s=ANSWER_IN_DOUBT_S)
        return await self.runs(invocation_id)

    async def runs(
        self, invocation_id: str, *, at_least_s: float = 0.0, answer_s: float = ANSWER_S
    ) -> Run | None:
        """The run that is under way, None if nobody says within `answer_s` that it is theirs.

        After `at_least_s` those who are known are enough.
        """
        question = invocation_token(invocation_id).encode()
        known = self._answering if self._clock.boot() < self._known_until else frozenset()
        enough_at = asyncio.get_running_loop().time() + at_least_s
        heard: set[str] = set()
        where = self._layout.who_runs
        with self._link.many_replies(where, of_peers=True) as (address, queue):
            await self._link.publish(where, question, address)
            try:
                async with asyncio.timeout(answer_s) as waiting:
                    while True:
                        message = await queue.get()
                        if isinstance(message, Exception):
                            raise message
                        if has_status(message):  # nobody is there to answer
                            return None
                        answer = self._link.read_answer(message)
                        if "attempt" in answer and answer["process"] != self._link.token:
                            return Run(
                                runner=answer["runner"],
                                attempt=answer["attempt"],
                                started_at=answer["started_at"],
                            )
                        heard.add(answer["process"])
                        if known and known <= heard:
                            waiting.reschedule(enough_at)
            except TimeoutError:
                if not (known and known <= heard):
                    self._answering, self._known_until = frozenset(heard), self._clock.boot() + KNOWN_S
        return None

    async def answer(self, find: Callable[[str], Run | None]) -> None:
        """Answer the question with `find`, wherever it is asked."""

        async def hear(message: Msg) -> None:
            run = find(message.data.decode(errors="replace"))
            answer: dict[str, object] = {"process": self._link.token}
            if run is not None:
                answer |= {"runner": run.runner, "attempt": run.attempt, "started_at": run.started_at}
            await self._link.publish(message.reply, orjson.dumps(answer))

        await self._link.subscribe(self._layout.who_runs, hear)

    def _forget(self) -> None:
        self._known_until = 0.0

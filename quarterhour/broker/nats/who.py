"""Asking who runs an invocation: every runner hears the question, only the one that has it answers."""

from collections.abc import Callable

import orjson

from quarterhour.broker.names import invocation_token
from quarterhour.broker.nats.layout import Layout
from quarterhour.broker.nats.link import Link, Msg, NoAnswer, NoResponders
from quarterhour.broker.port import Run

__all__ = ["Who"]

ANSWER_S = 0.12  # nobody says "not me", so silence is waited for


class Who:
    """Asks, and answers."""

    def __init__(self, link: Link, layout: Layout) -> None:
        """Questions over `link`."""
        self._link = link
        self._layout = layout

    async def runs(self, invocation_id: str) -> Run | None:
        """The run that is under way, None if nobody says that it is theirs."""
        question = invocation_token(invocation_id).encode()
        try:
            message = await self._link.request(self._layout.who_runs, question, timeout_s=ANSWER_S)
        except (NoResponders, NoAnswer):
            return None
        answer = self._link.read_answer(message)
        return Run(runner=answer["runner"], attempt=answer["attempt"], started_at=answer["started_at"])

    async def answer(self, find: Callable[[str], Run | None]) -> None:
        """Answer the question with `find`, wherever it is asked."""

        async def hear(message: Msg) -> None:
            run = find(message.data.decode(errors="replace"))
            if run is not None:
                answer = {"runner": run.runner, "attempt": run.attempt, "started_at": run.started_at}
                await self._link.publish(message.reply, orjson.dumps(answer))

        await self._link.subscribe(self._layout.who_runs, hear)

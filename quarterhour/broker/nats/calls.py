"""Synchronous calls: one message to the runner that the gateway chose, and one back."""

from collections.abc import Callable

import structlog

from quarterhour.broker.nats.layout import Layout
from quarterhour.broker.nats.link import Link, Msg, NoResponders, Subscription
from quarterhour.broker.port import Answer
from quarterhour.errors import EnvelopeError, RunnerGone, TooLarge
from quarterhour.invocation import Invocation, decode_invocation, encode_invocation
from quarterhour.outcome import Error, Failed
from quarterhour.reply import Refusal, Refused, Reply, decode_reply, encode_reply

__all__ = ["Calls"]

log = structlog.get_logger()


class Calls:
    """Calls, and serves them."""

    def __init__(self, link: Link, layout: Layout) -> None:
        """Calls over `link`."""
        self._link = link
        self._layout = layout
        self._serving: Subscription | None = None

    async def call(self, runner: str, invocation: Invocation) -> Reply:
        """Have `runner` run `invocation`, however long that takes."""
        subject = self._layout.call(runner)
        try:
            message = await self._link.request(subject, encode_invocation(invocation), timeout_s=None)
        except NoResponders:
            text = f"Nobody serves as runner {runner}."
            raise RunnerGone(text) from None
        return decode_reply(message.data)

    async def serve(self, runner: str, take: Callable[[Invocation, bytes, Answer], None]) -> None:
        """Start to receive calls for `runner`."""

        async def hear(message: Msg) -> None:
            async def answer(reply: Reply) -> None:
                await self._answer(message.reply, reply)

            try:
                invocation = decode_invocation(message.data)
            except EnvelopeError as error:  # of an unknown version, or from somebody else
                log.warning("call_unread", why=str(error))
                await answer(Refused(reason=Refusal.NOT_SERVED))
            else:
                take(invocation, message.data, answer)

        await self.stop_serving()
        self._serving = await self._link.subscribe(self._layout.call(runner), hear)

    async def stop_serving(self) -> None:
        """Receive no further calls; those on their way are still taken."""
        if self._serving is not None:
            serving, self._serving = self._serving, None
            await self._link.drain(serving)

    async def _answer(self, to: str, reply: Reply) -> None:
        data = encode_reply(reply)
        try:
            self._link.fits(data)
        except TooLarge as error:
            data = encode_reply(Failed(error=Error(type="ResponseTooLarge", message=str(error))))
        await self._link.publish(to, data)

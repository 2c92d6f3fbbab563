"""Calls in the broker in memory: what is asked and answered is encoded and decoded again, as over a wire."""

import asyncio
from collections.abc import Callable

from quarterhour.broker.flow import Inlet, Outlet
from quarterhour.broker.memory_store import Store, envelope_of, reply_bytes
from quarterhour.broker.names import runner_token
from quarterhour.broker.port import Answer, Stream
from quarterhour.errors import BrokerUnavailable, EnvelopeError, RunnerGone
from quarterhour.invocation import Invocation, decode_invocation
from quarterhour.outcome import Response
from quarterhour.reply import Chunk, Refusal, Refused, Reply, decode_reply

__all__ = ["MemoryCalls"]


class MemoryCalls:
    """The role `Calls` of a connection to `store`."""

    store: Store
    _serving: str | None
    _calls: set[asyncio.Future[Reply | Stream]]
    _ready: Callable[[], None]  # raises `BrokerUnavailable` while there is no connection

    async def call(self, runner: str, invocation: Invocation) -> Reply | Stream:
        """Have `runner` run `invocation`."""
        self._ready()
        envelope = envelope_of(invocation)
        take = self.store.servers.get(runner_token(runner))
        if take is None:
            message = f"Nobody serves as runner {runner}."
            raise RunnerGone(message)
        reply: asyncio.Future[Reply | Stream] = asyncio.get_running_loop().create_future()

        def deliver() -> None:
            try:
                call = decode_invocation(envelope)
            except EnvelopeError:
                reply.set_result(Refused(reason=Refusal.NOT_SERVED))
            else:
                take(call, envelope, MemoryAnswer(reply))

        self._calls.add(reply)
        asyncio.get_running_loop().call_soon(deliver)
        try:
            return await reply
        finally:
            self._calls.discard(reply)

    async def serve(self, runner: str, take: Callable[[Invocation, bytes, Answer], None]) -> None:
        """Receive calls for `runner`."""
        self._ready()
        self._serving = runner_token(runner)
        self.store.servers[runner] = take

    async def stop_serving(self) -> None:
        """Receive no further calls."""
        self._ready()
        self._stop_serving()

    def _stop_serving(self) -> None:
        if self._serving is not None:
            self.store.servers.pop(self._serving, None)
            self._serving = None

    def _end_calls(self) -> None:
        """The connection is closed: nobody is served any more, and nobody is answered."""
        self._stop_serving()
        for waiting_call in self._calls:
            if not waiting_call.done():
                waiting_call.set_exception(BrokerUnavailable("The connection was closed."))


class MemoryAnswer:
    """Answers one call."""

    def __init__(self, reply: asyncio.Future[Reply | Stream]) -> None:
        self._reply = reply
        self._outlet = Outlet()
        self._inlet: Inlet | None = None

    async def __call__(self, reply: Reply) -> None:
        """The reply, or the end of a stream."""
        if self._inlet is not None:
            self._inlet.feed(decode_reply(reply_bytes(reply)))
        elif not self._reply.done():
            self._reply.set_result(decode_reply(reply_bytes(reply)))

    async def begin(self, head: Response) -> None:
        """Begin a stream."""

        async def grant(size_bytes: int) -> None:
            self._outlet.grant(size_bytes)

        async def stop() -> None:
            self._outlet.close()

        self._inlet = Inlet(grant, stop)
        if self._reply.done():  # the caller has given up
            self._outlet.close()
        else:
            chunks = self._inlet.chunks()
            self._reply.set_result(Stream(head=head, chunks=chunks, close=self._inlet.close))

    async def send(self, chunk: bytes) -> None:
        """Send a piece of the body."""
        await self._outlet.take(len(chunk))
        if self._inlet is not None:
            self._inlet.feed(Chunk(data=chunk))

"""Responses that come bit by bit over NATS, whose plain messages know no back-pressure.

The runner's pieces go to the gateway's `streams` address, in the bundles of `calls.py`, and each of
those messages says where the runner hears of credit. There the gateway answers, from its `streams`
address, with a bundle that says how many more bytes (4 bytes, big-endian) each stream may send; 0
says that nobody reads it any more.
"""

from quarterhour.broker.flow import Inlet, Outlet
from quarterhour.broker.nats.bundle import pack_bundle, unpack_bundle
from quarterhour.broker.nats.link import Link, Msg
from quarterhour.broker.port import Stream
from quarterhour.errors import BrokerUnavailable
from quarterhour.outcome import Response
from quarterhour.reply import Chunk, Reply

__all__ = ["Inlets", "Outlets"]

_STOP = 0


class Inlets:
    """The streams that a gateway reads, by the number of their call. `address`: where they come in."""

    def __init__(self, link: Link, address: str) -> None:
        self._link = link
        self._address = address
        self._open: dict[int, Inlet] = {}

    def begin(self, number: int, head: Response, credit: str) -> Stream:
        """The stream of a call, whose runner hears of credit at `credit`."""

        async def grant(size_bytes: int) -> None:
            await self._tell(credit, number, size_bytes)

        async def stop() -> None:
            await self.refuse(number, credit)

        async def close() -> None:
            self._open.pop(number, None)
            await inlet.close()

        inlet = self._open[number] = Inlet(grant, stop)
        return Stream(head=head, chunks=inlet.chunks(), close=close)

    async def refuse(self, number: int, credit: str) -> None:
        """Say that nobody reads the stream; a runner that does not hear it ends when credit stays away."""
        try:
            await self._tell(credit, number, _STOP)
        except BrokerUnavailable:
            return

    def feed(self, number: int, piece: Chunk | Reply) -> None:
        """The next piece has come. What comes after the close is on its way still, and dropped."""
        inlet = self._open.get(number)
        if inlet is not None:
            inlet.feed(piece)

    def drop(self) -> None:
        """The connection is away: some pieces may be lost."""
        for inlet in self._open.values():
            inlet.feed(self._link.away())

    async def _tell(self, credit: str, number: int, size_bytes: int) -> None:
        await self._link.publish(
            credit, pack_bundle([(number, size_bytes.to_bytes(4, "big"))]), self._address
        )


class Outlets:
    """The streams that a runner sends, by the gateway's address and the number of their call."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._open: dict[tuple[str, int], Outlet] = {}
        self.address = ""  # where this runner hears of credit

    async def listen(self, address: str) -> None:
        """Begin to hear of credit."""
        if not self.address:
            await self._link.subscribe(address, self._hear)
            self.address = address

    def begin(self, address: str, number: int) -> Outlet:
        """The outlet of a stream."""
        outlet = self._open[address, number] = Outlet()
        return outlet

    def end(self, address: str, number: int) -> None:
        """The stream has ended."""
        self._open.pop((address, number), None)

    def drop(self) -> None:
        """The connection is away: what was sent may be lost, and so may credit."""
        for outlet in self._open.values():
            outlet.close()

    async def _hear(self, message: Msg) -> None:
        for number, data in unpack_bundle(message.data):
            outlet = self._open.get((message.reply, number))
            size_bytes = int.from_bytes(data, "big")
            if outlet is not None and size_bytes != _STOP:
                outlet.grant(size_bytes)
            elif outlet is not None:
                outlet.close()

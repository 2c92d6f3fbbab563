"""Storing messages durably: what is stored at the same time shares one write of the server (group commit).

A server that syncs before it acknowledges does so once for a message on its own, and once for an
atomic batch of hundreds. But a batch has a price of its own (about 5 ms), so while few messages are
under way each goes alone; what piles up behind those goes as one batch, and there is never more
than one batch on its way.

A group is what one caller stores together: all or nothing, in a batch of its own if need be.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from quarterhour.broker.nats.layout import Message
from quarterhour.broker.nats.link import Link, Refused
from quarterhour.broker.port import ANSWER_S
from quarterhour.errors import BrokerError, BrokerUnavailable, Conflict

__all__ = ["Append"]

ALONE_MAX = 4  # under way at a time; more of them hardly store more in a second, and keep batches small
TOGETHER_MIN = 10  # from about here on a batch costs less than its messages alone, on a server that syncs
BATCH_MESSAGES_MAX = 500  # the server takes 1,000
BATCH_BYTES_MAX = 1024 * 1024
WRONG_SEQUENCE = 10071


@dataclass(slots=True, eq=False)
class _Group:
    """Messages to be stored together. `stored`: the last one's sequence; None: publish it alone yourself."""

    messages: Sequence[Message]
    stored: asyncio.Future[int | None]


class Append:
    """The way into the stream."""

    def __init__(self, link: Link) -> None:
        """`run` has to run meanwhile."""
        self._link = link
        self._waiting: deque[_Group] = deque()
        self._work = asyncio.Event()
        self._alone = 0
        self._batching = False
        self._ids = (f"{link.token}-{number}" for number in itertools.count())

    async def store(self, *messages: Message) -> int:
        """Return once all of them are stored; gives the sequence of the last one.

        Raises `Conflict` if one of them expected another sequence, `TooLarge`, `BrokerUnavailable`.
        """
        if not self._link.connected:
            raise self._link.away()
        for message in messages:
            self._link.fits(len(message.payload))
        if len(messages) == 1 and not self._batching and not self._waiting and self._alone < ALONE_MAX:
            return await self._store_alone(messages[0])
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._store_together(messages)
        except TimeoutError:
            text = f"The broker at {self._link.place} did not store anything for {ANSWER_S:g} s."
            raise BrokerUnavailable(text) from None

    async def _store_together(self, messages: Sequence[Message]) -> int:
        group = _Group(messages, asyncio.get_running_loop().create_future())
        self._waiting.append(group)
        self._work.set()
        sequence = await group.stored
        return await self._store_alone(messages[0]) if sequence is None else sequence

    async def _store_alone(self, message: Message) -> int:
        self._alone += 1
        try:
            answer = await self._link.request(message.subject, message.payload, message.headers)
            sequence: int = self._link.read_answer(answer)["seq"]
            return sequence
        except Refused as refused:
            raise _meaning(refused) from None
        finally:
            self._alone -= 1
            if self._waiting:
                self._work.set()

    async def run(self) -> None:
        """Send what waits, for ever."""
        while True:
            await self._work.wait()
            self._work.clear()
            while groups := self._next_batch():
                self._batching = True
                try:
                    await self._send(groups)
                    # Whom this has answered may have more to store: that shares the next batch.
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                finally:
                    self._batching = False

    def _next_batch(self) -> list[_Group]:
        """What goes as one batch now. Without one, as many as may are told to go alone."""
        while self._waiting and self._waiting[0].stored.done():  # given up
            self._waiting.popleft()
        if len(self._waiting) < TOGETHER_MIN and all(len(group.messages) == 1 for group in self._waiting):
            for _ in range(min(ALONE_MAX - self._alone, len(self._waiting))):
                _finish(self._waiting.popleft(), None)
            return []
        groups: list[_Group] = []
        count = size = 0
        while self._waiting:
            group = self._waiting[0]
            count += len(group.messages)
            size += sum(len(message.payload) for message in group.messages)
            if groups and (count > BATCH_MESSAGES_MAX or size > BATCH_BYTES_MAX):
                break
            self._waiting.popleft()
            if not group.stored.done():
                groups.append(group)
        return groups

    async def _send(self, groups: list[_Group]) -> None:
        if len(groups) == 1 and len(groups[0].messages) == 1:
            _finish(groups[0], None)
            return
        try:
            last = await self._publish_batch([message for group in groups for message in group.messages])
        except Refused as refused:
            await self._separate(groups, refused)
        except BrokerError as error:
            for group in groups:
                _fail(group, BrokerUnavailable(str(error)))
        else:
            for group in reversed(groups):
                _finish(group, last)
                last -= len(group.messages)

    async def _separate(self, groups: list[_Group], refused: Refused) -> None:
        """One of them is the cause: each on its own, so that the others do not suffer."""
        if len(groups) == 1:
            _fail(groups[0], _meaning(refused))
            return
        for group in groups:
            await self._send([group])

    async def _publish_batch(self, messages: list[Message]) -> int:
        """Store all or nothing; gives the sequence of the last one. Raises `Refused`."""
        batch = next(self._ids)
        address, reply = self._link.expect(messages[-1].subject)
        try:
            for number, message in enumerate(messages, start=1):
                headers = message.headers | {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
                last = number == len(messages)
                if last:
                    headers["Nats-Batch-Commit"] = "1"
                await self._link.publish(message.subject, message.payload, address if last else "", headers)
            answer = self._link.read_answer(await self._link.answer(reply))
            sequence: int = answer["seq"]
            return sequence
        finally:
            self._link.forget(address)


def _finish(group: _Group, sequence: int | None) -> None:
    if not group.stored.done():
        group.stored.set_result(sequence)


def _fail(group: _Group, error: Exception) -> None:
    if not group.stored.done():
        group.stored.set_exception(error)


def _meaning(refused: Refused) -> Conflict | BrokerUnavailable:
    if refused.number == WRONG_SEQUENCE:
        message = "Somebody else has stored another revision."
        return Conflict(message)
    return BrokerUnavailable(str(refused))

"""Reading the stream, and creating what must be there before anything else."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from quarterhour.broker.nats.layout import CONSUMER_PREFIX, COUNTER_PREFIX, Layout, seconds_of
from quarterhour.broker.nats.link import Denied, Link, Msg, Refused, has_status
from quarterhour.errors import BrokerUnavailable

__all__ = ["Backlog", "Overview", "Stored", "Stream"]

NOT_FOUND = 404
STREAM_EXISTS = 10058
CREATE_TRIES = 5
PAGE = 256

_MISSING = {
    "CREATE": "NATS has no stream {} yet, and this user may not create it",
    "UPDATE": "The stream {} of NATS is not set as this version needs it, and this user may not change it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A message of the stream. `stored_at`: Unix s."""

    subject: str
    sequence: int
    stored_at: float
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """A function's queue as the server sees it.

    `pending` were never delivered, `unacknowledged` were; `delivered` is the sequence of the last
    delivery, and up to `settled` everything is acknowledged. `limit` is that of `unacknowledged`.
    """

    function: str
    pending: int
    unacknowledged: int
    delivered: int
    settled: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """By function: the queues, and how many invocations are delayed where they are counted."""

    backlogs: dict[str, Backlog] = field(default_factory=dict)
    delayed: dict[str, int] = field(default_factory=dict)


class Stream:
    """The one stream of a namespace."""

    def __init__(self, link: Link, layout: Layout) -> None:
        """`ensure` has to come first."""
        self._link = link
        self._layout = layout
        self._replicas = 1

    @property
    def replicas(self) -> int:
        """How many servers keep each message."""
        return self._replicas

    @property
    def forgets_unseen(self) -> bool:
        """Whether the server that has it may crash, and forget, while we are connected to another one.

        With replicas a new leader says so.
        """
        return self._replicas == 1 and self._link.clustered

    async def ensure(self, replicas: int | None) -> None:
        """Create or update stream and bucket; any number of processes may do so at once."""
        wanted = {"num_replicas": replicas} if replicas is not None else {}
        config = await self._ensure(self._layout.stream_config() | wanted)
        self._replicas = config.get("num_replicas", 1)
        await self._ensure(self._layout.bodies_config() | wanted)
        await self._ensure(self._layout.bucket_config() | wanted)

    async def _ensure(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """The settings of a stream once it is as wanted; what is not ours to say stays as it is."""
        name = wanted["name"]
        for _ in range(CREATE_TRIES):
            try:
                existing: dict[str, Any] = (await self._link.api(f"STREAM.INFO.{name}"))["config"]
            except Refused as refused:
                if refused.status != NOT_FOUND:
                    raise
                verb, config = "CREATE", wanted
            else:
                verb, config = "UPDATE", existing | wanted
                if config == existing:
                    return existing
            try:
                answer = await self._link.api(f"STREAM.{verb}.{name}", config)
            except Denied:
                message = f"{_MISSING[verb].format(name)}: start a process first whose user may."
                raise BrokerUnavailable(message) from None
            except Refused as refused:
                if refused.number != STREAM_EXISTS and refused.status != NOT_FOUND:
                    raise
                continue  # another process was at it at the same moment
            created: dict[str, Any] = answer["config"]
            return created
        message = f"The stream {name} is created and removed again by somebody else."
        raise Refused({"description": message})

    # Messages

    async def last(self, subject: str) -> Stored | None:
        """The message at `subject`, as the leader of a cluster has it."""
        if self._replicas > 1:
            return await self._last_of_leader(subject)
        message = await self._link.request(f"$JS.API.DIRECT.GET.{self._layout.stream}.{subject}")
        return None if self._link.is_end(message) else _stored(message)

    async def _last_of_leader(self, subject: str) -> Stored | None:
        # A direct get may be answered by a replica that lags: seen just after another leader was elected.
        return await self._of_leader(self._layout.stream, {"last_by_subj": subject})

    async def _of_leader(self, name: str, which: dict[str, Any]) -> Stored | None:
        try:
            answer = await self._link.api(f"STREAM.MSG.GET.{name}", which)
        except Refused as refused:
            if refused.status == NOT_FOUND:
                return None
            raise
        message = answer["message"]
        return Stored(
            subject=message["subject"],
            sequence=message["seq"],
            stored_at=seconds_of(message["time"]),
            data=b64decode(message.get("data", "")),
        )

    async def extent(self) -> tuple[int, float]:
        """The sequence of what was stored last, 0 if nothing ever was, and the server's Unix time."""
        info = await self._link.api(f"STREAM.INFO.{self._layout.stream}")
        return int(info["state"]["last_seq"]), seconds_of(info["ts"])

    async def last_of_each(self, filters: list[str]) -> list[Stored]:
        """The message at each subject that one of `filters` matches; at most about a thousand.

        Of a cluster it is the last one of each filter, as the leader has it. They are looked for one
        after the other: what moves on to where a later filter matches is found twice rather than never.
        """
        if self._replicas > 1:
            last = [await self._last_of_leader(filter_subject) for filter_subject in filters]
            return [stored for stored in last if stored is not None]
        body = {"multi_last": filters}
        found = await self._link.collect(f"$JS.API.DIRECT.GET.{self._layout.stream}", body)
        return [stored for message in found if (stored := _stored(message)) is not None]

    async def next(self, filter_subject: str, sequence: int) -> Stored | None:
        """The first message from `sequence` on that the filter matches."""
        body = {"seq": sequence, "next_by_subj": filter_subject, "batch": 1}
        found = await self._link.collect(f"$JS.API.DIRECT.GET.{self._layout.stream}", body)
        return _stored(found[0]) if found else None

    async def pieces(self, subject: str, sequence: int, count: int) -> list[Stored]:
        """The first messages of a body from `sequence` on, at most `count`; none: there are none."""
        which = {"seq": sequence, "next_by_subj": subject}
        found = await self._link.collect(
            f"$JS.API.DIRECT.GET.{self._layout.bodies}", which | {"batch": count}
        )
        if not found and self._replicas > 1:  # as above; the leader gives one at a time
            return [one] if (one := await self._of_leader(self._layout.bodies, which)) is not None else []
        return [stored for message in found if (stored := _stored(message)) is not None]

    async def all_of_bucket(self) -> AsyncIterator[Stored]:
        """Every message of the bucket of functions, read in pages."""
        async for stored in self._pages(self._layout.bucket, self._layout.all_function_keys()):
            yield stored

    async def all_of(self, filter_subject: str) -> AsyncIterator[Stored]:
        """Every message that the filter matches, read in pages; what changes meanwhile may come twice."""
        async for stored in self._pages(self._layout.stream, filter_subject):
            yield stored

    async def _pages(self, name: str, filter_subject: str) -> AsyncIterator[Stored]:
        sequence = 1
        while True:
            body = {"seq": sequence, "next_by_subj": filter_subject, "batch": PAGE}
            found = await self._link.collect(f"$JS.API.DIRECT.GET.{name}", body)
            for message in found:
                if (stored := _stored(message)) is not None:
                    sequence = stored.sequence + 1
                    yield stored
            if len(found) < PAGE:
                return

    # Queues

    async def overview(self) -> Overview:
        """What the server knows of all functions; the cost does not grow with what waits."""
        found = Overview()
        offset = 0
        while True:
            answer = await self._link.api(f"CONSUMER.LIST.{self._layout.stream}", {"offset": offset})
            page = answer["consumers"] or []
            for info in page:
                if info["name"].startswith(CONSUMER_PREFIX):
                    backlog = _backlog(info)
                    found.backlogs[backlog.function] = backlog
                elif info["name"].startswith(COUNTER_PREFIX):
                    found.delayed[info["name"].removeprefix(COUNTER_PREFIX)] = info["num_pending"]
            offset += len(page)
            if not page or offset >= answer["total"]:
                return found

    async def stored_bytes(self) -> int:
        """What each server holds of all that is stored; NATS adds up the replicas of the whole account."""
        stored: int = (await self._link.api("INFO"))["storage"]
        return stored // self._replicas

    async def backlog(self, function: str) -> Backlog | None:
        """The queue of one function; None if it has none yet."""
        info = await self._consumer(self._layout.consumer(function))
        return _backlog(info) if info is not None else None

    async def _consumer(self, name: str) -> dict[str, Any] | None:
        try:
            return await self._link.api(f"CONSUMER.INFO.{self._layout.stream}.{name}")
        except Refused as refused:
            if refused.status == NOT_FOUND:
                return None
            raise

    async def count(self, filter_subject: str) -> int:
        """How many subjects the filter matches."""
        return len(await self.subjects(filter_subject, name=self._layout.stream))

    async def subjects(self, filter_subject: str, *, name: str) -> list[str]:
        """The subjects of a stream that the filter matches."""
        found: list[str] = []
        while True:
            body = {"subjects_filter": filter_subject, "offset": len(found)}
            answer = await self._link.api(f"STREAM.INFO.{name}", body)
            page = answer["state"].get("subjects") or {}
            found.extend(page)
            if not page or len(found) >= answer.get("total", 0):
                return found

    async def ensure_queue(self, function: str, concurrency: int | None) -> None:
        """Create or update a function's queue."""
        await self._ensure_consumer(self._layout.consumer_config(function, concurrency))

    async def _ensure_consumer(self, config: dict[str, Any]) -> None:
        """Create or update a consumer unless it is as wanted: then it need not be allowed either."""
        info = await self._consumer(config["name"])
        if info is None or not config.items() <= info["config"].items():
            name = f"{self._layout.stream}.{config['name']}.{config['filter_subject']}"
            body = {"stream_name": self._layout.stream, "config": config}
            await self._link.api(f"CONSUMER.CREATE.{name}", body)

    async def ensure_queues(self, limits: dict[str, int | None]) -> None:
        """Create or update the queues of these functions, with their limits."""
        await asyncio.gather(*(self.ensure_queue(name, limit) for name, limit in limits.items()))

    async def count_delayed(self, function: str) -> None:
        """Have the server count a function's delayed invocations, those that are there already as well."""
        await self._ensure_consumer(self._layout.counter_config(function))

    async def stop_counting(self, function: str) -> None:
        """The reverse of `count_delayed`; any number of processes may do so at once."""
        try:
            await self._link.api(f"CONSUMER.DELETE.{self._layout.stream}.{self._layout.counter(function)}")
        except Refused as refused:
            if refused.status != NOT_FOUND:
                raise

    async def purge(self, filter_subject: str, *, below: int | None = None, name: str | None = None) -> None:
        """Remove what the filter matches, all of it or what has a sequence below the given one."""
        body: dict[str, Any] = {"filter": filter_subject}
        if below is not None:
            body["seq"] = below
        await self._link.api(f"STREAM.PURGE.{name or self._layout.stream}", body)


def _stored(message: Msg) -> Stored | None:
    if has_status(message) or message.headers is None:
        return None
    return Stored(
        subject=message.headers["Nats-Subject"],
        sequence=int(message.headers["Nats-Sequence"]),
        stored_at=seconds_of(message.headers["Nats-Time-Stamp"]),
        data=message.data,
    )


def _backlog(info: dict[str, Any]) -> Backlog:
    return Backlog(
        function=info["name"].removeprefix(CONSUMER_PREFIX),
        pending=info["num_pending"],
        unacknowledged=info["num_ack_pending"],
        delivered=info["delivered"]["stream_seq"],
        settled=info["ack_floor"]["stream_seq"],
        limit=info["config"]["max_ack_pending"],
    )

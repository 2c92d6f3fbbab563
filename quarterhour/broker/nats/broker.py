"""The NATS adapter: the rooms of this package put together behind the port."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from quarterhour.broker.nats.access import open_access
from quarterhour.broker.nats.address import Address, parse_address
from quarterhour.broker.nats.append import Append
from quarterhour.broker.nats.bells import Bells
from quarterhour.broker.nats.bodies import Bodies
from quarterhour.broker.nats.calls import Calls
from quarterhour.broker.nats.cancelling import Cancelling
from quarterhour.broker.nats.connection import open_link, running
from quarterhour.broker.nats.directory import Directory
from quarterhour.broker.nats.layout import Layout
from quarterhour.broker.nats.link import Link, NoResponders, Refused
from quarterhour.broker.nats.queue import Queue
from quarterhour.broker.nats.records import Records
from quarterhour.broker.nats.schedules import Schedules
from quarterhour.broker.nats.stream import Stream
from quarterhour.broker.nats.who import Who
from quarterhour.broker.nats.work import Work
from quarterhour.broker.port import Broker, BrokerOptions
from quarterhour.errors import BrokerUnavailable, BrokerUnsuitable

__all__ = ["NatsBroker", "connect"]

VERSION_MIN = (2, 12)
NO_PEERS = 10005  # NATS's number for "no suitable peers for placement": some are not up yet
BESIDES_BODY_BYTES = 256 * 1024  # request line, headers and earlier errors, as JSON
PAYLOAD_BYTES_USUAL = 1024 * 1024  # what a server takes that is not told anything else


class NatsBroker:
    """Everything together. The roles' methods are the rooms' own: nothing lies between."""

    def __init__(
        self,
        link: Link,
        *,
        calls: Calls,
        bodies: Bodies,
        queue: Queue,
        schedules: Schedules,
        work: Work,
        who: Who,
        records: Records,
        cancelling: Cancelling,
        directory: Directory,
        warnings: tuple[str, ...],
    ) -> None:
        """`connect` makes these."""
        self._link = link
        self.warnings = warnings
        self.lost = link.lost
        self.call, self.serve, self.stop_serving = calls.call, calls.serve, calls.stop_serving
        self.keep_body, self.read_body = bodies.keep_body, bodies.read_body
        self.remove_body, self.sweep_bodies = bodies.remove_body, bodies.sweep_bodies
        self.enqueue, self.knows = queue.enqueue, queue.knows
        self.tend, self.store_use = queue.tend, queue.store_use
        self.cursors, self.place, self.unplace = schedules.cursors, schedules.place, schedules.unplace
        self.prepare, self.bells, self.pull = work.prepare, work.bells, work.pull
        self.renew, self.settle = work.renew, work.settle
        self.acknowledge, self.hand_back = work.acknowledge, work.hand_back
        self.who_runs, self.answer_who_runs = who.runs_surely, who.answer
        self.cancel, self.on_cancelled = cancelling.cancel, cancelling.on_cancelled
        self.read, self.write = records.read, records.write
        self.status, self.changes = records.status, records.changes
        self.announce, self.withdraw = directory.announce, directory.withdraw
        self.functions, self.function_changes = directory.functions, directory.function_changes
        self.beat, self.beats, self.on_roll_call = directory.beat, directory.beats, directory.on_roll_call

    @property
    def connected(self) -> bool:
        """Whether a server is there now."""
        return self._link.connected

    @property
    def body_bytes_max(self) -> int:
        """The largest body that fits into one message."""
        return body_bytes_max(self._link.payload_bytes_max)


def body_bytes_max(payload_bytes_max: int) -> int:
    """What a message of at most `payload_bytes_max` leaves for the body."""
    return max(payload_bytes_max - BESIDES_BODY_BYTES, payload_bytes_max // 2)


@asynccontextmanager
async def connect(options: BrokerOptions) -> AsyncIterator[Broker]:
    """A connection to NATS, with everything there that it needs.

    Raises `SettingsError` for an address that is none or names a file that will not do,
    `BrokerUnavailable` if nobody is there or lets us in, `BrokerUnsuitable` if the server cannot hold
    the promises.
    """
    address, layout = parse_address(options.url), Layout(options)
    access = open_access(address)
    async with open_link(
        address,
        access,
        name=f"quarterhour {options.name}",
        inbox=layout.inbox(options.name),
        lease_s=options.lease_s,
        clock=options.clock,
    ) as link:
        stream = Stream(link, layout)
        await _prepare(link, stream, address)
        append, bells = Append(link), Bells(link, layout, stream)
        calls = Calls(link, layout)
        who = Who(link, layout, stream, options.clock)
        records = Records(link, layout, stream, append, who)
        directory = Directory(link, layout, stream)
        work = Work(link, layout, stream=stream, append=append, bells=bells, records=records, options=options)
        async with running(link, append.run(), bells.run(), calls.run()), aclosing(work):
            if stream.replicas > 1:
                await link.subscribe(layout.new_leaders, link.on_new_leader)
            await directory.listen()
            await calls.listen()
            yield NatsBroker(
                link,
                calls=calls,
                bodies=Bodies(link, layout, stream, dead_letter_s=options.dead_letter_s),
                queue=Queue(
                    layout, stream, append, bells, options.clock, store_bytes_max=address.store_bytes_max
                ),
                schedules=Schedules(layout, stream, append, bells, options.clock),
                work=work,
                who=who,
                records=records,
                cancelling=Cancelling(
                    link, layout, stream=stream, append=append, records=records, clock=options.clock
                ),
                directory=directory,
                warnings=(*access.warnings, *_warnings(link, stream, address)),
            )


async def _prepare(link: Link, stream: Stream, address: Address) -> None:
    if link.version < VERSION_MIN:
        message = (
            f"The NATS server at {link.place} is {link.version[0]}.{link.version[1]}; "
            f"Quarterhour needs {VERSION_MIN[0]}.{VERSION_MIN[1]} or newer: please update it."
        )
        raise BrokerUnsuitable(message)
    try:
        await link.api("INFO")
        await stream.ensure(address.replicas)
    except NoResponders:
        message = (
            f"The NATS server at {link.place} runs without JetStream, so nothing can be stored: "
            "add `jetstream {}` to its configuration, or start it with -js."
        )
        raise BrokerUnsuitable(message) from None
    except Refused as refused:
        message = f"The NATS server at {link.place} cannot hold the queues. {refused}"
        # 503 is its word for "not now": a cluster that has no leader yet, for instance; or too few servers.
        not_now = refused.status == 503 or refused.number == NO_PEERS
        raise (BrokerUnavailable if not_now else BrokerUnsuitable)(message) from None


def _warnings(link: Link, stream: Stream, address: Address) -> tuple[str, ...]:
    found: list[str] = []
    if stream.replicas == 1 and not address.always_synced:
        found.append(
            "NATS keeps one replica and does not tell how often it syncs to disk: unless its configuration "
            "says `sync_interval: always`, a power failure can lose work of the last minutes that was "
            "answered with 202. If it does, add ?sync_interval=always to --broker."
        )
    if stream.forgets_unseen:
        found.append(
            "NATS is a cluster and keeps one replica: while its server is away nothing is accepted, and "
            "since it may be started again unseen, the other runners are asked before each background "
            "invocation whether they run it. Add ?replicas=3 to --broker."
        )
    if link.max_payload < PAYLOAD_BYTES_USUAL:
        found.append(
            f"NATS takes messages of {link.max_payload} bytes: headers, results and logs may not fit. "
            "Its own default, max_payload: 1MB, is enough for bodies of any size."
        )
    return tuple(found)

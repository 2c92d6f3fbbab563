"""Where everything lies in NATS: subjects, streams, consumers, and the messages that are stored. Pure.

One stream holds work, schedules, records and dead letters, so that a settlement is one atomic batch:

    <namespace>.q.<function>.<invocation>.<attempt>   work that is due
    <namespace>.s.retry.<invocation>                  schedules that publish to q: of retries,
    <namespace>.s.delay.<function>.<invocation>       of first attempts that are due later,
    <namespace>.s.cron.<function>.<invocation>        and of firings that are placed ahead
    <namespace>.c.<function>                          cursors: how far the firings are placed
    <namespace>.c._server.<id>                        how far the stream went when a server was started
    <namespace>.r.<function>.<invocation>             records, replaced by compare-and-set
    <namespace>.d.<function>.<invocation>             dead letters
    <namespace>.k.<hash>                              idempotency keys, each stored with its work

Large bodies lie in a stream beside it, every piece of one under the same subject:

    <namespace>.b.work|request|response.<invocation>

The first one has Limits retention: an acknowledgement then costs no write of its own, and what is settled is
purged later, many at once. Functions are kept in a bucket that any NATS client can read. Calls,
beats, bells and questions are plain messages that nobody stores.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from quarterhour.body import BodyKind
from quarterhour.broker.names import function_token, invocation_token, process_token, runner_token
from quarterhour.broker.port import KEY_KEPT_S, BrokerOptions, Cursor, Key, Settlement
from quarterhour.errors import SettingsError
from quarterhour.function import Mode, is_function_name
from quarterhour.ids import is_invocation_id
from quarterhour.invocation import Invocation, Request, encode_invocation
from quarterhour.lifecycle import FINAL, State
from quarterhour.record import Record, encode_record

__all__ = [
    "CONSUMER_PREFIX",
    "COUNTER_PREFIX",
    "EMPTIED",
    "LEASED_MAX",
    "NS",
    "Layout",
    "Message",
    "Place",
    "bodies_of",
    "bucket_of",
    "checked_namespace",
    "seconds_of",
    "ttl",
]

CONSUMERS_MAX = 5000  # unset means 1,000
LEASED_MAX = 50_000  # for functions without a limit of their own; unset means 1,000
REPEATS_REMEMBERED_S = 120
SERVER_NOTED_S = 30 * 24 * 3600  # then it is noted anew: what was stored up to then is doubtful for nothing
CONSUMER_PREFIX = "fn-"
COUNTER_PREFIX = "delay-"
NS = 1_000_000_000
EMPTIED = b""  # what is left of an attempt that is cancelled, until it is removed

_NAMESPACE = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Message:
    """A message for the stream. Headers are ours alone: what users send never becomes one."""

    subject: str
    payload: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a subject of the queue says about the attempt that waits there."""

    function: str
    id: str
    attempt: int


class Layout:
    """The subjects and settings of one namespace. Every name is checked before it becomes a subject."""

    def __init__(self, options: BrokerOptions) -> None:
        """The layout under `options.namespace`. Raises `SettingsError` if that cannot be one."""
        self._options = options
        self.namespace = checked_namespace(options.namespace)
        self.stream = self.namespace
        self.bodies = bodies_of(self.namespace)
        self.bucket = bucket_of(self.namespace)
        self.bell = f"{self.namespace}.bell"
        self.beat = f"{self.namespace}.beat"
        self.roll_call = f"{self.namespace}.ctl.roll"
        self.who_runs = f"{self.namespace}.ctl.who"
        self.told_cancelled = f"{self.namespace}.ctl.cancelled"
        self.new_leaders = f"$JS.EVENT.ADVISORY.CONSUMER.LEADER_ELECTED.{self.stream}.>"
        self.functions_changed = f"{self.namespace}.ctl.functions"

    # Subjects

    def inbox(self, process: str) -> str:
        """What the addresses for replies to a kind of process begin with: no kind hears another's."""
        return f"_INBOX.{self.namespace}.{process_token(process)}"

    def call(self, runner: str) -> str:
        """Where a runner takes calls."""
        return f"{self.namespace}.call.{runner_token(runner)}"

    def credit(self, runner: str) -> str:
        """Where a runner hears how much more of its streams it may send."""
        return f"{self.namespace}.credit.{runner_token(runner)}"

    def work(self, function: str, invocation_id: str, attempt: int) -> str:
        """Where an attempt waits."""
        return f"{self.namespace}.q.{function_token(function)}.{invocation_token(invocation_id)}.{attempt:d}"

    def work_of(self, function: str, invocation_id: str) -> str:
        """The filter for every attempt of an invocation that waits."""
        return f"{self.namespace}.q.{function_token(function)}.{invocation_token(invocation_id)}.*"

    def delay(self, function: str, invocation_id: str) -> str:
        """Where a first attempt waits for its moment."""
        return f"{self.namespace}.s.delay.{function_token(function)}.{invocation_token(invocation_id)}"

    def retry(self, invocation_id: str) -> str:
        """Where a further attempt waits for its moment."""
        return f"{self.namespace}.s.retry.{invocation_token(invocation_id)}"

    def all_work(self, function: str) -> str:
        """The filter for everything that waits for a function."""
        return f"{self.namespace}.q.{function_token(function)}.>"

    def record(self, function: str, invocation_id: str) -> str:
        """Where a record lies."""
        return f"{self.namespace}.r.{function_token(function)}.{invocation_token(invocation_id)}"

    def record_of_any(self, invocation_id: str) -> str:
        """The filter for an invocation's record, whatever its function."""
        return f"{self.namespace}.r.*.{invocation_token(invocation_id)}"

    def everything_about(self, invocation_id: str) -> list[str]:
        """The filters for an invocation's delay, scheduled retry, attempts and record: as it moves."""
        token = invocation_token(invocation_id)
        return [
            f"{self.namespace}.s.delay.*.{token}",
            self.retry(token),
            f"{self.namespace}.q.*.{token}.*",
            self.record_of_any(token),
        ]

    def all_delays(self, function: str) -> str:
        """The filter for a function's first attempts that are due later."""
        return f"{self.namespace}.s.delay.{function_token(function)}.*"

    def body(self, kind: BodyKind, invocation_id: str) -> str:
        """Where the pieces of a large body lie."""
        return f"{self.namespace}.b.{kind}.{invocation_token(invocation_id)}"

    def all_bodies_of_work(self) -> str:
        """The filter for the large bodies of background invocations."""
        return f"{self.namespace}.b.{BodyKind.WORK}.*"

    def everything_with_body(self, invocation_id: str) -> list[str]:
        """The filters for all that may still need an invocation's body."""
        token = invocation_token(invocation_id)
        *work, _ = self.everything_about(token)
        return [*work, f"{self.namespace}.d.*.{token}"]

    def cursor(self, function: str) -> str:
        """Where a schedule's cursor lies."""
        return f"{self.namespace}.c.{function_token(function)}"

    def server(self, server_id: str) -> str:
        """Where it is noted how far the stream went when a server was started."""
        return f"{self.namespace}.c._server.{runner_token(server_id)}"

    def all_cursors(self) -> str:
        """The filter for all cursors."""
        return f"{self.namespace}.c.*"

    def all_firings(self, function: str) -> str:
        """The filter for what is placed of a function's schedule."""
        return f"{self.namespace}.s.cron.{function_token(function)}.*"

    def key(self, function: str, key_text: str) -> str:
        """Where an idempotency key lies. No subject is made of what a client sent: its hash is."""
        digest = hashlib.sha256(f"{function_token(function)} {key_text}".encode())
        return f"{self.namespace}.k.{digest.hexdigest()}"

    def function_key(self, function: str) -> str:
        """Where a function's manifest lies."""
        return f"$KV.{self.bucket.removeprefix('KV_')}.{function_token(function)}"

    def all_function_keys(self) -> str:
        """The filter for all manifests."""
        return f"$KV.{self.bucket.removeprefix('KV_')}.>"

    def parts(self, subject: str) -> list[str]:
        """The tokens of one of the stream's subjects, without the namespace."""
        return subject.split(".")[1:]

    def place(self, subject: str) -> Place | None:
        """What lies at a subject of the queue, or waits for its moment; None if it is none of ours."""
        match self.parts(subject):
            case ["q", function, invocation_id, attempt] if attempt.isdecimal():
                pass
            case ["s", "delay", function, invocation_id]:
                attempt = "1"
            case _:
                return None
        if is_function_name(function) and is_invocation_id(invocation_id):
            return Place(function=function, id=invocation_id, attempt=int(attempt))
        return None

    def next_work(self, function: str) -> str:
        """Where to ask for a function's work."""
        return f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{self.consumer(function)}"

    def unread(self, place: Place, *, stored_at: float) -> Invocation:
        """An invocation as far as its place tells, for one whose envelope cannot be read here."""
        return Invocation(
            id=place.id,
            function=place.function,
            mode=Mode.BACKGROUND,
            attempt=place.attempt,
            accepted_at=stored_at,
            due_at=stored_at,
            request=Request(method="", path=""),
            body=None,
        )

    # Messages

    def accepted(self, invocation: Invocation, now: float) -> Message:
        """A first attempt, at `now` (Unix s). Published twice with the same id, it is stored once."""
        message = self._when_due(self.delay(invocation.function, invocation.id), invocation, now)
        return replace(message, headers=message.headers | {"Nats-Msg-Id": invocation.id})

    def keyed(self, invocation: Invocation, key: Key) -> Message:
        """The key of a first attempt; it is refused if there is one already."""
        payload = orjson.dumps({"id": invocation.id, "fingerprint": key.fingerprint})
        headers = {"Nats-Expected-Last-Subject-Sequence": "0", "Nats-TTL": ttl(KEY_KEPT_S)}
        return Message(self.key(invocation.function, key.text), payload, headers)

    def placed(self, cursor: Cursor, firings: Sequence[Invocation], now: float) -> tuple[Message, ...]:
        """The firings, and as the last message the cursor over the revision that it carries."""
        messages = [
            self._when_due(
                f"{self.namespace}.s.cron.{function_token(each.function)}.{invocation_token(each.id)}",
                each,
                now,
            )
            for each in firings
        ]
        return (
            *messages,
            self._cursor(cursor, {"schedule": cursor.schedule, "placed_until": cursor.placed_until}),
        )

    def begun(self, server_id: str, last_sequence: int) -> Message:
        """The note about a server that was started, which the first one to write it writes."""
        headers = {"Nats-Expected-Last-Subject-Sequence": "0", "Nats-TTL": ttl(SERVER_NOTED_S)}
        return Message(self.server(server_id), b"%d" % last_sequence, headers)

    def unplaced(self, cursor: Cursor) -> Message:
        """The cursor, over the revision that it carries, while its firings are removed."""
        return self._cursor(cursor, {})

    def _cursor(self, cursor: Cursor, fields: dict[str, Any]) -> Message:
        headers = {"Nats-Expected-Last-Subject-Sequence": str(cursor.revision)}
        return Message(self.cursor(cursor.function), orjson.dumps(fields), headers)

    def stored(self, record: Record) -> Message:
        """The record over the revision that it carries; kept for a while once it is final."""
        headers = {"Nats-Expected-Last-Subject-Sequence": str(record.revision)}
        if record.state is State.SUCCEEDED:
            headers["Nats-TTL"] = ttl(self._options.record_succeeded_s)
        elif record.state in FINAL:
            headers["Nats-TTL"] = ttl(self._options.record_failed_s)
        return Message(self.record(record.function, record.id), encode_record(record), headers)

    def settled(self, settlement: Settlement, now: float, *, bytes_max: int) -> tuple[Message, ...]:
        """All that one settlement stores, at `now` (Unix s), no message above `bytes_max` if it can be."""
        record = self.stored(settlement.record)
        if settlement.record.state is State.DEAD:
            envelope = settlement.delivery.envelope
            return (record, self.buried(settlement.record, envelope, bytes_max=bytes_max))
        if settlement.retry is not None:
            return (record, self._when_due(self.retry(settlement.retry.id), settlement.retry, now))
        return (record,)

    def cancelled(self, record: Record, place: Place | None) -> tuple[Message, ...]:
        """A record that is cancelled, as the last message; what waits at `place` is emptied with it."""
        if place is None:
            return (self.stored(record),)
        return (Message(self.work(place.function, place.id, place.attempt), EMPTIED), self.stored(record))

    def buried(self, record: Record, envelope: bytes, *, bytes_max: int) -> Message:
        """The dead letter: an envelope whose header is the record and whose body is the invocation's own.

        Beside a large body there may be no room for all of the evidence; the record has it for a while. What
        leaves no room even for the rest, because somebody else wrote it, is cut.
        """
        room = bytes_max - len(envelope) - 4
        evidence = encode_record(record)
        if len(evidence) > room:
            record = replace(record, attempts=tuple(replace(each, logs="") for each in record.attempts))
            evidence = encode_record(record)
        if len(evidence) > room:
            evidence = encode_record(replace(record, attempts=()))
            envelope = envelope[: max(0, bytes_max - len(evidence) - 4)]
        data = b"".join((len(evidence).to_bytes(4, "big"), evidence, envelope))
        subject = f"{self.namespace}.d.{function_token(record.function)}.{invocation_token(record.id)}"
        return Message(subject, data, {"Nats-TTL": ttl(self._options.dead_letter_s)})

    def _when_due(self, subject: str, invocation: Invocation, now: float) -> Message:
        """The attempt on its queue, or until it is due at `subject`, as a schedule that puts it there."""
        target = self.work(invocation.function, invocation.id, invocation.attempt)
        envelope = encode_invocation(invocation)
        if invocation.due_at <= now:
            return Message(target, envelope)
        at = datetime.fromtimestamp(invocation.due_at, UTC).isoformat(timespec="microseconds")
        headers = {"Nats-Schedule": f"@at {at}", "Nats-Schedule-Target": target}
        return Message(subject, envelope, headers)

    # Streams and consumers

    def stream_config(self) -> dict[str, Any]:
        """The settings of the stream that the promises need."""
        return {
            "name": self.stream,
            "subjects": [f"{self.namespace}.{kind}.>" for kind in "qsrdck"],
            "storage": "file",
            "retention": "limits",
            "discard": "old",  # schedules refuse "new"; there is no limit that would discard anything
            "max_msgs_per_subject": 1,
            "max_consumers": CONSUMERS_MAX,
            "duplicate_window": REPEATS_REMEMBERED_S * NS,
            "allow_direct": True,
            "allow_atomic": True,
            "allow_msg_schedules": True,
            "allow_msg_ttl": True,
        }

    def bodies_config(self) -> dict[str, Any]:
        """The settings of the stream of large bodies. Each piece says how long it is kept at most."""
        return {
            "name": self.bodies,
            "subjects": [f"{self.namespace}.b.>"],
            "storage": "file",
            "retention": "limits",
            "allow_direct": True,
            "allow_msg_ttl": True,
        }

    def bucket_config(self) -> dict[str, Any]:
        """The settings of the bucket of functions: those of any key-value bucket of NATS."""
        return {
            "name": self.bucket,
            "subjects": [self.all_function_keys()],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "max_msgs_per_subject": 1,
            "deny_delete": True,
            "allow_rollup_hdrs": True,
            "allow_direct": True,
        }

    def consumer(self, function: str) -> str:
        """The name of a function's queue."""
        return f"{CONSUMER_PREFIX}{function_token(function)}"

    def consumer_config(self, function: str, concurrency: int | None) -> dict[str, Any]:
        """The settings of a function's queue; a lease is the wait for an acknowledgement."""
        name = self.consumer(function)
        return {
            "durable_name": name,
            "name": name,
            "filter_subject": self.all_work(function),
            "deliver_policy": "all",
            "replay_policy": "instant",
            "ack_policy": "explicit",
            "ack_wait": round(self._options.lease_s * NS),
            "max_deliver": -1,
            "max_ack_pending": concurrency or LEASED_MAX,
        }

    def counter(self, function: str) -> str:
        """The name of the consumer that counts a function's delayed invocations."""
        return f"{COUNTER_PREFIX}{function_token(function)}"

    def counter_config(self, function: str) -> dict[str, Any]:
        """The settings of that consumer: nobody pulls from it, so what is pending is what there is."""
        name = self.counter(function)
        return {
            "durable_name": name,
            "name": name,
            "filter_subject": self.all_delays(function),
            "deliver_policy": "all",
            "replay_policy": "instant",
            "ack_policy": "none",
        }


def checked_namespace(text: str) -> str:
    """`text`, if it may be a namespace. Raises `SettingsError`."""
    if _NAMESPACE.fullmatch(text) is None:
        message = f"The namespace is {text!r}; it takes 1 to 64 of A-Z a-z 0-9 _ -."
        raise SettingsError(message)
    return text


def bodies_of(namespace: str) -> str:
    """The name of the stream of large bodies."""
    return f"{namespace}-bodies"


def bucket_of(namespace: str) -> str:
    """The name of the stream behind the bucket of functions."""
    return f"KV_{namespace}-functions"


def seconds_of(timestamp: str) -> float:
    """The Unix time of one of the server's RFC 3339 timestamps."""
    return datetime.fromisoformat(timestamp).timestamp()


def ttl(seconds: float) -> str:
    """So many seconds as the server takes them."""
    return f"{max(1, math.ceil(seconds))}s"

"""The error tree. Each class has a stable code; only the gateway's problem table knows HTTP statuses.

QuarterhourError
├── SettingsError            a setting or a function's configuration is wrong
├── EnvelopeError            bytes that are no envelope
│   └── UnknownVersion       an envelope of a version that this process does not know
├── IllegalTransition        (quarterhour.lifecycle)
└── BrokerError
    ├── BrokerUnavailable    away, or did not answer in time; the operation may be tried again
    ├── BrokerUnsuitable     a server that cannot hold the promises (too old, no JetStream, ...)
    ├── TooLarge             a message that the broker would refuse
    ├── Conflict             a compare-and-set found another revision
    ├── KeyReused            an idempotency key that was used for another request
    ├── BodyLost             a large body is not there any more, or not whole
    ├── RunnerGone           nobody serves at the runner's address: the call was never started
    ├── RunnerLost           the runner that has the call went silent
    ├── StreamBroken         a response that was under way does not go on
    └── StreamClosed         nobody reads the response that is under way any more
"""

__all__ = [
    "BodyLost",
    "BrokerError",
    "BrokerUnavailable",
    "BrokerUnsuitable",
    "Conflict",
    "EnvelopeError",
    "KeyReused",
    "QuarterhourError",
    "RunnerGone",
    "RunnerLost",
    "SettingsError",
    "StreamBroken",
    "StreamClosed",
    "TooLarge",
    "UnknownVersion",
]


class QuarterhourError(Exception):
    """Anything that Quarterhour itself reports. The message is a sentence for people."""

    code = "internal"


class SettingsError(QuarterhourError):
    """A setting or a function's configuration is wrong; names the place, the value, what is allowed."""

    code = "settings"


class EnvelopeError(QuarterhourError):
    """Bytes from the broker that are no envelope."""

    code = "envelope"


class UnknownVersion(EnvelopeError):  # noqa: N818 - a state of affairs, not a fault of the program
    """An envelope of a version that this process does not know: hand it back, do not guess."""

    code = "unknown_version"


class BrokerError(QuarterhourError):
    """What can happen between a process and its broker."""

    code = "broker"


class BrokerUnavailable(BrokerError):  # noqa: N818
    """The broker is away or did not answer in time. What was asked may or may not have happened."""

    code = "broker_unavailable"


class BrokerUnsuitable(BrokerError):  # noqa: N818
    """The broker cannot hold the promises; the message says what to change."""

    code = "broker_unsuitable"


class TooLarge(BrokerError):  # noqa: N818
    """A message that the broker would refuse; nothing was sent."""

    code = "too_large"


class Conflict(BrokerError):  # noqa: N818
    """A compare-and-set found another revision; nothing was stored."""

    code = "conflict"


class KeyReused(BrokerError):  # noqa: N818
    """An idempotency key that was used for another request; nothing was stored."""

    code = "key_reused"


class BodyLost(BrokerError):  # noqa: N818
    """A large body is not there any more, or not whole."""

    code = "body_lost"


class RunnerGone(BrokerError):  # noqa: N818
    """Nobody serves at the runner's address any more: the call was never started."""

    code = "runner_gone"


class RunnerLost(BrokerError):  # noqa: N818
    """The runner that has the call went silent: it may or may not have run."""

    code = "runner_lost"


class StreamBroken(BrokerError):  # noqa: N818
    """A response that was under way does not go on: its function failed, or was ended."""

    code = "stream_broken"


class StreamClosed(BrokerError):  # noqa: N818
    """Nobody reads the response that is under way any more: the client went away."""

    code = "stream_closed"

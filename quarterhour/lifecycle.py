"""The life of a background invocation: every state, every event, every transition in one table.

A move that the table lacks raises `IllegalTransition` and nothing happens. The diagram in
`docs/architecture.md` is drawn from the table.
"""

from enum import StrEnum

from quarterhour.errors import QuarterhourError

__all__ = ["FINAL", "TRANSITIONS", "Event", "IllegalTransition", "State", "advance", "diagram"]


class State(StrEnum):
    """Where an invocation stands; the words are the API's."""

    DELAYED = "delayed"  # accepted, not yet due; the schedule moves it out
    WAITING = "waiting"  # due, on the queue; a runner moves it out
    RUNNING = "running"  # a runner holds its lease; its outcome, or the end of the lease, moves it out
    RETRYING = "retrying"  # an attempt has failed; the schedule of the next moves it out
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"


class Event(StrEnum):
    """What can happen to it."""

    DUE = "due"
    STARTED = "started"
    HANDED_BACK = "handed_back"
    SUCCEEDED = "succeeded"
    RETRIED = "retried"
    BURIED = "buried"
    CANCELLED = "cancelled"


FINAL = frozenset({State.SUCCEEDED, State.DEAD, State.CANCELLED})

TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.DELAYED, Event.DUE): State.WAITING,
    (State.DELAYED, Event.CANCELLED): State.CANCELLED,
    (State.WAITING, Event.STARTED): State.RUNNING,
    (State.WAITING, Event.BURIED): State.DEAD,  # it expired, or five runners were lost with it
    (State.WAITING, Event.CANCELLED): State.CANCELLED,
    (State.RUNNING, Event.STARTED): State.RUNNING,  # its runner was lost: the next delivery starts it again
    (State.RUNNING, Event.HANDED_BACK): State.WAITING,
    (State.RUNNING, Event.SUCCEEDED): State.SUCCEEDED,
    (State.RUNNING, Event.RETRIED): State.RETRYING,
    (State.RUNNING, Event.BURIED): State.DEAD,
    (State.RUNNING, Event.CANCELLED): State.CANCELLED,
    (State.RETRYING, Event.DUE): State.WAITING,
    (State.RETRYING, Event.CANCELLED): State.CANCELLED,
}


class IllegalTransition(QuarterhourError):  # noqa: N818 - the field's word
    """An event came that has no place in the invocation's state; nothing was changed."""

    code = "illegal_transition"


def advance(state: State, event: Event) -> State:
    """The state after `event`. Raises `IllegalTransition` if the table has no such move."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        message = f"An invocation that is {state} cannot be {event}."
        raise IllegalTransition(message) from None


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> waiting: accepted", "    [*] --> delayed: accepted with a delay"]
    lines += [f"    {start} --> {end}: {event}" for (start, event), end in TRANSITIONS.items()]
    lines += [f"    {state} --> [*]" for state in State if state in FINAL]
    return "\n".join(lines)

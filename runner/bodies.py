"""Large bodies as the runner has to do with them: the worker gets them behind its envelope."""

from functools import partial

import structlog

from quarterhour.broker.port import Bodies
from quarterhour.errors import BrokerError
from quarterhour.invocation import Invocation
from quarterhour.lifecycle import State
from runner.sandbox.job import Rest

__all__ = ["forget_body", "rest_of"]

log = structlog.get_logger()


def rest_of(invocation: Invocation, bodies: Bodies) -> Rest | None:
    """What belongs behind the invocation's envelope, if its body is a large one."""
    if invocation.claim is None:
        return None
    return Rest(size_bytes=invocation.claim.size_bytes, read=partial(bodies.read_body, invocation.claim))


async def forget_body(invocation: Invocation, state: State, bodies: Bodies) -> None:
    """Remove the large body of an invocation that will not run again; a dead letter keeps its own."""
    if invocation.claim is None or state not in {State.SUCCEEDED, State.CANCELLED}:
        return
    try:
        await bodies.remove_body(invocation.claim)
    except BrokerError as error:  # a gateway's sweep finds it
        log.info("body_not_removed", invocation=invocation.id, why=str(error))

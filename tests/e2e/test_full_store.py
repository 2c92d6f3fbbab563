"""A store that runs full: no more is accepted in time, so that what was accepted can be finished."""

import signal
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from tests.nats_server import NatsServer
from tests.system import System
from tests.waiting import eventually

STORE_BYTES = 8 * 1024 * 1024
BODY = bytes(100_000)
ENOUGH = 1000  # requests: they would fill it ten times
FUNCTIONS = {
    "report-background": "def handler(event, context):\n    return len(event['body'])\n",
    "hello": "def handler(event, context):\n    return {'statusCode': 200}\n",
}


class Small(System):
    """A system whose NATS stores little, and whose gateway and runners know that."""

    def __init__(self, folder: Path, functions: Mapping[str, str]) -> None:
        super().__init__(folder, functions)
        store = {"store_dir": str(folder / "store"), "sync_interval": "always", "max_file_store": STORE_BYTES}
        self.nats = NatsServer(folder / "nats", more={"jetstream": store})

    def broker(self, what: str) -> str:
        return f"{super().broker(what)}?sync_interval=always&max_file_store={STORE_BYTES}"


async def fill(system: System) -> tuple[list[str], httpx.Response]:
    """Send until no more is accepted: the ids, and the refusal. Every third one is delayed."""
    ids: list[str] = []
    for number in range(ENOUGH):
        headers = {"x-quarterhour-delay": "2"} if number % 3 == 0 else {}
        answer = await system.post("report-background", content=BODY, headers=headers)
        if answer.status_code != 202:
            return ids, answer
        ids.append(answer.headers["x-nf-request-id"])
    pytest.fail("it was never full")


async def test_what_was_accepted_is_finished_and_then_there_is_room_again(tmp_path: Path) -> None:
    async with Small(tmp_path, FUNCTIONS) as system:
        await system.start_gateway()
        runner = await system.start_runner()
        runner.send(signal.SIGTERM)  # its functions stay known, and nothing is finished meanwhile
        await runner.ended()
        ids, refused = await fill(system)
        assert (refused.status_code, refused.json()["code"]) == (503, "store_full")
        assert int(refused.headers["retry-after"]) > 0
        assert len(ids) * len(BODY) > 0.8 * STORE_BYTES
        assert await system.metric("quarterhour_store_limit_bytes") == STORE_BYTES

        await system.start_runner()
        for id in ids:
            status = await system.in_state(id, "succeeded", "dead", deadline_s=60)
            assert (status["state"], status["attempt"]) == ("succeeded", 1)
        assert (await system.post("hello")).status_code == 200

        async def accepted() -> bool:
            return (await system.post("report-background", content=BODY)).status_code == 202

        await eventually(accepted, what="there was room again")

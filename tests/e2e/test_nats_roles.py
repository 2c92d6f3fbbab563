"""Everything runs on a NATS server that lets gateway and runner do what they need and nothing else."""

import signal
from pathlib import Path

from tests.nats_roles import GUARDED, url_of, violations
from tests.system import System
from tests.waiting import eventually

FUNCTIONS = {
    "hello": """
        def handler(event, context):
            return {"statusCode": 200, "body": "hello"}
    """,
    "pieces": """
        def handler(event, context):
            return {"statusCode": 200, "body": ("x" * 65536 for _ in range(8))}
    """,
    "fine-background": """
        def handler(event, context):
            return 1
    """,
    "again-background": """
        config = {"retries": 2, "retry_delay": [0, 0.2]}

        def handler(event, context):
            if context.attempt < 3:
                raise ValueError("once more")
    """,
    "hopeless-background": """
        config = {"retries": 0}

        def handler(event, context):
            raise ValueError("never")
    """,
    "slow-background": """
        import pathlib, time

        def handler(event, context):
            while not pathlib.Path(event["body"]).exists():
                time.sleep(0.01)
    """,
    "each-second-background": """
        import pathlib

        config = {"schedule": "* * * * * *"}

        def handler(event, context):
            pathlib.Path("fired").touch()
    """,
}
TEXT = {"content-type": "text/plain"}


class Guarded(System):
    """A system whose gateway and runner come to their broker as what they are."""

    def broker(self, what: str) -> str:
        return f"{url_of(self.nats, what)}?sync_interval=always"


async def test_nobody_tries_what_is_not_allowed(tmp_path: Path) -> None:
    async with Guarded(tmp_path, FUNCTIONS, nats_text=GUARDED) as system:
        gateway = await system.start_gateway()
        runner = await system.start_runner()
        await eventually(lambda: ran(system, "hello"), what="the gateway knew the functions")
        assert (await system.post("pieces")).text == "x" * 8 * 65536
        running = await system.enqueue("slow-background", content="go on", headers=TEXT)
        ids = {
            name: await system.enqueue(f"{name}-background", headers=headers)
            for name, headers in (
                ("fine", {}),
                ("again", {}),
                ("hopeless", {}),
                ("fine", {"x-quarterhour-delay": "0.5"}),
            )
        }
        await system.in_state(running, "running")  # which is asked of the runners
        (tmp_path / "go on").touch()
        await system.in_state(ids["hopeless"], "dead")
        await system.in_state(ids["again"], "succeeded")
        await system.in_state(ids["fine"], "succeeded")
        await eventually((tmp_path / "fired").exists, what="the schedule fired")
        last = await system.enqueue("slow-background", content="end", headers=TEXT)
        await system.in_state(last, "running")
        runner.send(signal.SIGTERM)
        await eventually(lambda: runner.facts("draining"), what="the runner finishes what runs")
        (tmp_path / "end").touch()
        assert await runner.ended() == 0
        gateway.send(signal.SIGTERM)
        assert await gateway.ended() == 0
        assert violations(system.nats) == []
        for process in system.processes:
            assert process.facts("broker_denied") == []
            assert process.facts("broker_error") == []


async def ran(system: System, name: str) -> bool:
    return (await system.post(name)).status_code == 200

"""Both kinds of function through a gateway, NATS, a runner and a worker: all real."""

from pathlib import Path

from tests.system import System
from tests.waiting import eventually

FUNCTIONS = {
    "hello": """
        def handler(event, context):
            return {"statusCode": 200, "body": f"hello {event['queryStringParameters'].get('name')}"}
    """,
    "work-background": """
        def handler(event, context):
            print("working on", event["body"])
            return {"done": event["body"]}
    """,
}


async def test_both_kinds_of_function(tmp_path: Path) -> None:
    async with System(tmp_path, FUNCTIONS) as system:
        await system.start_gateway()
        runner = await system.start_runner()

        answer = await system.post("hello?name=ada", content=b"")
        assert (answer.status_code, answer.text) == (200, "hello ada")

        invocation = await system.enqueue("work-background", content=b"42")
        status = await system.in_state(invocation, "succeeded", "dead")
        assert status["outcome"] == "succeeded", status
        await eventually(lambda: runner.facts("function_output"), what="the runner has logged it")
        (output,) = runner.facts("function_output")
        assert output["text"].startswith("working on")
        assert output["invocation"] == invocation

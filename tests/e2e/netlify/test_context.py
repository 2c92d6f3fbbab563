"""What a classic handler may ask: "Context (classic)"."""

import pytest

from tests.e2e.netlify.rows import javascript, python, row
from tests.e2e.netlify.sites import Site

pytestmark = pytest.mark.asyncio(loop_scope="module")


@row("context")
async def test_the_context(site: Site) -> None:
    answer = await site.call("echo")
    (identity,) = answer.values("x-nf-request-id")
    context = answer.json["context"]
    assert context["awsRequestId"] == identity
    assert context["functionName"] == "echo"
    assert context["functionVersion"] == "$LATEST"
    assert context["invokedFunctionArn"].split(":")[-1] == "echo"
    assert str(context["memoryLimitInMB"]) == "512"  # JavaScript has it as text, as in Lambda
    assert "echo" in context["logGroupName"]
    assert isinstance(context["logStreamName"], str)
    assert context["clientContext"] == {}
    assert context["identity"] is None
    assert context["callbackWaitsForEmptyEventLoop"] is True


@row("context", "time-limit")
async def test_the_remaining_time_is_that_of_the_limit(site: Site) -> None:
    remaining = [(await site.seen("echo"))["context"]["remaining"] for _ in range(20)]
    assert abs(remaining[-1] - 60_000) < 5_000  # the first one may have waited for its worker
    assert isinstance(remaining[-1], int)


@javascript
@row("context-callbacks")
@pytest.mark.parametrize("how", ["done", "succeed"])
async def test_old_code_answers_by_its_context(site: Site, how: str) -> None:
    answer = await site.call("callbacks", f"?how={how}")
    assert (answer.status, answer.body.decode()) == (200, how)


@javascript
@row("context-callbacks")
@pytest.mark.parametrize(
    ("how", "message"), [("fail", "failed"), ("done%20with%20an%20error", "done")], ids=["fail", "done"]
)
async def test_and_fails_by_it(site: Site, how: str, message: str) -> None:
    answer = await site.call("callbacks", f"?how={how}")
    assert (answer.status, answer.json["errorType"], answer.json["errorMessage"]) == (
        500,
        "RangeError",
        message,
    )


@python
@row("context-lambda")
async def test_the_names_that_lambdas_authors_know(site: Site) -> None:
    shown = await site.seen("echo")
    ours, theirs = shown["lambda"], shown["context"]
    for name, other in {
        "aws_request_id": "awsRequestId",
        "function_name": "functionName",
        "function_version": "functionVersion",
        "invoked_function_arn": "invokedFunctionArn",
        "memory_limit_in_mb": "memoryLimitInMB",
        "log_group_name": "logGroupName",
        "log_stream_name": "logStreamName",
        "identity": "identity",
        "client_context": "clientContext",
    }.items():
        assert ours[name] == theirs[other], name
    assert 55_000 < ours["remaining"] <= 60_000

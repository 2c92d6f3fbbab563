"""The context: both families of names, one set of values."""

import pytest

from quarterhour.clock import boot_s
from runner.sandbox.python.context import Context

BOTH_NAMES = [
    ("aws_request_id", "awsRequestId", "0190a"),
    ("function_name", "functionName", "hello"),
    ("function_version", "functionVersion", "$LATEST"),
    (
        "invoked_function_arn",
        "invokedFunctionArn",
        "arn:quarterhour:lambda:local:000000000000:function:hello",
    ),
    ("memory_limit_in_mb", "memoryLimitInMB", 512),
    ("log_group_name", "logGroupName", "/quarterhour/hello"),
    ("log_stream_name", "logStreamName", "0190a"),
    ("client_context", "clientContext", {}),
]


def context(limit_at: float = 0.0, params: dict[str, str] | None = None) -> Context:
    return Context(
        invocation_id="0190a",
        function="hello",
        memory_mib=512,
        attempt=2,
        limit_at=limit_at,
        errors=[{"type": "ValueError", "message": "once", "trace": []}],
        params=params,
    )


@pytest.mark.parametrize(("lambdas", "netlifys", "value"), BOTH_NAMES)
def test_both_names_have_the_value(lambdas: str, netlifys: str, value: object) -> None:
    assert getattr(context(), lambdas) == value
    assert getattr(context(), netlifys) == value


def test_what_has_one_name_only() -> None:
    assert context().identity is None
    assert context().callbackWaitsForEmptyEventLoop is True
    assert context().attempt == 2
    assert context().errors == [{"type": "ValueError", "message": "once", "trace": []}]


def test_the_remaining_time_is_whole_milliseconds_until_the_limit() -> None:
    ten_seconds = context(boot_s() + 10)
    for remaining in (ten_seconds.get_remaining_time_in_millis(), ten_seconds.getRemainingTimeInMillis()):
        assert type(remaining) is int
        assert 5_000 < remaining <= 10_000


def test_past_the_limit_no_time_remains() -> None:
    assert context(boot_s() - 1).get_remaining_time_in_millis() == 0


def test_a_handler_may_keep_something_in_its_context() -> None:
    mine = context()
    mine.logger = "x"  # type: ignore[attr-defined]
    mine.callbackWaitsForEmptyEventLoop = False
    mine.client_context["user"] = "ada"
    assert mine.clientContext == {"user": "ada"}
    assert context().client_context == {}, "contexts share nothing"


def test_it_says_what_it_is() -> None:
    assert repr(context()) == "Context(hello, 0190a, attempt 2)"


def test_the_parts_of_the_path_are_there_or_empty() -> None:
    assert context().params == {}
    assert context(params={"id": "7"}).params == {"id": "7"}

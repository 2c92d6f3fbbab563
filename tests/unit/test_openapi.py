"""The OpenAPI document says what there is: every route, every problem, and shapes as they are."""

import re
from typing import Any, cast

import jsonschema_rs
import pytest
from quart import Quart

from gateway.access import need_at
from gateway.api.openapi import document
from gateway.api.routes import ApiRooms, add_routes
from gateway.api.shapes import function_shape, invocation_shape, target_shapes
from gateway.problems import KINDS, Code, Problem
from quarterhour.broker.port import Beat, Run, Status
from quarterhour.function import PREFIX, Mode
from quarterhour.lifecycle import State
from quarterhour.outcome import Error
from quarterhour.record import Attempt, Record
from quarterhour.retry import BuryReason
from tests.process.gateway_rig import function

DOCUMENT = document()
NOW = 1_700_000_000.0
ERROR = Error(type="KeyError", message="'name'", trace=("line 1",))


def validate(name: str, value: Any) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    jsonschema_rs.Draft202012Validator(schema, validate_formats=True).validate(value)


def test_every_route_is_in_it_and_no_other() -> None:
    app = Quart("gateway", static_folder=None)
    add_routes(app, cast("ApiRooms", None))
    rules = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method not in {"HEAD", "OPTIONS"}  # the framework's own
    }
    written = {(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert {one for one in written if not one[0].startswith(PREFIX)} == rules


def resolved(response: dict[str, Any]) -> dict[str, Any]:
    name = response.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = DOCUMENT["components"]["responses"][name] if name else response
    return found


def test_it_knows_each_problem_with_its_status() -> None:
    known = {
        (code, int(status))
        for methods in DOCUMENT["paths"].values()
        for method, operation in methods.items()
        if method != "parameters"
        for status, response in operation["responses"].items()
        if (problem := resolved(response).get("content", {}).get("application/problem+json"))
        for code in problem["schema"]["properties"]["code"]["enum"]
    }
    assert known == {(str(code), kind.status) for code, kind in KINDS.items()}


def test_what_is_open_is_what_needs_no_key() -> None:
    for path, methods in DOCUMENT["paths"].items():
        if not path.startswith(PREFIX):
            assert (methods["get"].get("security") == []) == (need_at(path, "GET") is None), path


@pytest.mark.parametrize("code", Code)
def test_a_problem_is_as_it_says(code: Code) -> None:
    validate("Problem", Problem(code=code, detail="It is so.").to_json())


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"schedule": "@daily", "error": "line 3: invalid syntax", "concurrency": 3},
        {"path": ("/a/:b", "/c"), "excluded_path": ("/a/x",), "method": ("GET",)},
    ],
)
def test_a_function_is_as_it_says(values: dict[str, Any]) -> None:
    validate("Function", function_shape(function("report", **values), runners=2, now=NOW))


def test_a_target_is_as_it_says() -> None:
    beat = Beat(runner="r", functions=(), slots=1, draining=False, metrics="127.0.0.1:9465")
    validate("Target", target_shapes([beat])[0])


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("result", [None, b"1", b'{"a": [1, null]}', b"x" * 100_000])
@pytest.mark.parametrize("run", [None, Run(runner="r", attempt=2, started_at=NOW)])
def test_an_invocation_is_as_it_says(state: State, result: bytes | None, run: Run | None) -> None:
    attempts = tuple(
        Attempt(
            attempt=number,
            started_at=NOW,
            finished_at=NOW,
            outcome=outcome,
            error=error,
            logs="a line\n",
            runner="r",
        )
        for number, (outcome, error) in enumerate([("failed", ERROR), ("succeeded", None)], 1)
    )
    record = Record(
        id="01930000-0000-7000-8000-000000000001",
        function="report-background",
        mode=Mode.BACKGROUND,
        state=state,
        attempt=2,
        accepted_at=NOW,
        due_at=NOW,
        reason=BuryReason.FAILED if state is State.DEAD else None,
        result=result,
        attempts=attempts if result else (),
    )
    validate("Invocation", invocation_shape(Status(record=record, run=run)))

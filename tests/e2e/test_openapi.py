"""Every answer of a whole system is one that its OpenAPI document announces: Schemathesis asks at random."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.system import System

pytestmark = pytest.mark.asyncio(loop_scope="module")

FUNCTIONS = dict.fromkeys(
    ("echo", "echo-background"),
    "def handler(event, context):\n    return {'statusCode': 200, 'body': event['body'] or ''}\n",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with System(tmp_path_factory.mktemp("openapi"), FUNCTIONS) as system:
        await system.start_gateway()
        await system.start_runner()
        yield system
        assert system.gateway is not None
        assert [fact for fact in system.gateway.log if fact.get("level") == "error"] == []
        assert "Traceback" not in system.gateway.log_path.read_text()


def ask(url: str) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    for result in schema.get_all_operations():
        operation = result.ok()  # type: ignore[union-attr]

        @settings(
            max_examples=4,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def one(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate()

        one()


async def test_random_requests_get_what_is_announced(system: System) -> None:
    await asyncio.to_thread(ask, system.url)


async def test_a_method_that_is_not_announced_is_405(system: System) -> None:
    paths = (await system.get("/openapi.json")).json()["paths"]
    for path, methods in paths.items():
        for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE", "QUERY"):
            if method.lower() not in methods and not path.startswith("/.netlify"):
                answer = await system._http.request(
                    method, system.url + path.format(name="echo", invocation_id="x")
                )
                assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
                assert "GET" in answer.headers["allow"]

"""When `up` says that it is ready: told by a gateway that learns of things one after the other."""

import json

from quarterhour.cli.readiness import functions_when_ready
from tests.web_server import Page, WebServer

TARGET = {"targets": ["127.0.0.1:9465"], "labels": {"runner": "one"}}


def shown(value: object, status: int = 200) -> Page:
    return Page(body=json.dumps(value), type="application/json", status=status)


def listed(*names: str, unread: tuple[str, ...] = ()) -> Page:
    return shown({"functions": [{"name": name} for name in names], "unread": unread})


async def ready(**pages: list[Page]) -> list[str]:
    """The functions that were listed in the end; every page was shown before, the last one perhaps often."""
    by_path = {
        "/readyz": pages.get("readyz", [shown({})]),
        "/v1/runners/targets": pages.get("targets", [shown([TARGET])]),
        "/v1/functions": pages["functions"],
    }
    with WebServer(by_path) as gateway:
        functions = await functions_when_ready(
            gateway.url, certificate=None, key=None, runners=1, check_hope=lambda: None
        )
        assert {path: len(left) for path, left in gateway.pages.items()} == dict.fromkeys(by_path, 1)
    return [function["name"] for function in functions]


async def test_the_gateway_and_every_runner_are_waited_for() -> None:
    assert await ready(
        readyz=[shown({}, 503), shown({})], targets=[shown([]), shown([TARGET])], functions=[listed("a")]
    ) == ["a"]


async def test_what_a_runner_serves_is_waited_for_however_long_nothing_changes() -> None:
    waiting = [listed("a", unread=("b",))] * 5
    assert await ready(functions=[*waiting, listed("a", "b")]) == ["a", "b"]


async def test_a_list_that_changes_is_looked_at_once_more() -> None:
    assert await ready(functions=[listed("a"), listed("a", "b"), listed("a", "b")]) == ["a", "b"]

"""Functions that run by the clock: `schedule`, and "Scheduled functions"."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.e2e.netlify.layouts import ALIASES
from tests.e2e.netlify.rows import row
from tests.e2e.netlify.sites import Site, Sites
from tests.waiting import eventually

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
]

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")


async def listed(site: Site, name: str) -> dict[str, Any]:
    return (await site.functions())[name]


async def fired(site: Site, name: str, times: int) -> list[Any]:
    """What the function has seen, once it has run so many times."""
    return await eventually(
        lambda: seen if len(seen := site.noted(name)) >= times else None,
        what=f"{name} has run {times} times",
    )


@row("schedule")
@pytest.mark.parametrize("alias", ALIASES)
async def test_the_words(site: Site, alias: str) -> None:
    now = datetime.now(UTC)
    one = await listed(site, f"at-{alias}")
    assert (one["schedule"], one["error"]) == (f"@{alias}", None)
    assert ISO.fullmatch(one["next_run"])
    moment = datetime.fromisoformat(one["next_run"])
    assert moment > now
    assert (moment.minute, moment.second) == (0, 0)
    if alias != "hourly":
        assert moment.hour == 0  # in UTC
    if alias == "weekly":
        assert moment.isoweekday() == 7
    if alias in ("monthly", "yearly"):
        assert moment.day == 1
    if alias == "yearly":
        assert (moment.month, moment.year) == (1, now.year + 1)


@row("schedule")
async def test_five_fields_in_the_toml(site: Site) -> None:
    one = await listed(site, "by-toml")
    moment = datetime.fromisoformat(one["next_run"])
    assert one["schedule"] == "30 4 * * 1-5"
    assert (moment.hour, moment.minute) == (4, 30)
    assert moment.isoweekday() <= 5


@row("schedule")
async def test_what_is_no_schedule_is_an_error(site: Site) -> None:
    one = await listed(site, "never")
    assert "schedule" in one["error"]
    assert one["next_run"] is None


@row("scheduled")
@pytest.mark.parametrize("name", ["each-second", "each-second-background"])
async def test_a_firing_is_a_post_that_says_when_the_next_one_is(site: Site, name: str) -> None:
    seen = await fired(site, name, 3)
    events = [one["event"] for one in seen]
    assert {event["httpMethod"] for event in events} == {"POST"}
    for event in events:
        assert event["headers"]["user-agent"] == "Netlify Clockwork"
        assert event["headers"]["x-nf-event"] == "schedule"
        assert event["isBase64Encoded"] is False
        body = json.loads(event["body"])
        assert body.keys() == {"next_run"}
        assert ISO.fullmatch(body["next_run"])
    moments = [json.loads(event["body"])["next_run"] for event in events]
    assert len(set(moments)) == len(moments), "each firing ran once"
    assert len({one["context"]["awsRequestId"] for one in seen}) == len(seen)


@row("scheduled-limit")
@pytest.mark.parametrize(("name", "limit_s"), [("each-second", 60), ("each-second-background", 900)])
async def test_the_limit_of_a_firing(site: Site, name: str, limit_s: int) -> None:
    seen = await fired(site, name, 1)
    assert 0.9 * limit_s * 1000 < seen[0]["context"]["remaining"] <= limit_s * 1000
    assert (await listed(site, name))["timeout_s"] == limit_s


@row("scheduled-address")
@pytest.mark.parametrize(("name", "status"), [("nightly", 200), ("nightly-background", 202)])
async def test_with_up_it_can_be_called(site: Site, name: str, status: int) -> None:
    assert (await site.call(name, method="POST")).status == status


@row("scheduled-address")
@pytest.mark.parametrize("name", ["nightly", "nightly-background"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_otherwise_it_cannot(sites: Sites, language: str, name: str, method: str) -> None:
    answer = await sites.settings(language).call(name, method=method)
    assert (answer.status, answer.body) == (404, b"Function not found...")

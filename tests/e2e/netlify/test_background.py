"""Background functions: accepted at once, run later, tried again."""

import asyncio
import uuid
from datetime import datetime
from typing import Any

import pytest

from tests.e2e.netlify.rows import row
from tests.e2e.netlify.sites import JSON, TEXT, Site
from tests.e2e.wire import PREFIX, request
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@row("accepted", "result-hidden")
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "BREW"])
async def test_every_method_is_accepted(site: Site, method: str) -> None:
    answer = await site.call("notes-background", method=method)
    assert (answer.status, answer.body, answer.rest) == (202, b"", b"")
    assert answer.values("content-length") == ["0"]
    assert answer.values("content-type") == answer.values("x-secret") == []
    (identity,) = answer.values("x-nf-request-id")
    assert answer.values("location") == [f"/v1/invocations/{identity}"]
    assert (await site.end(identity))["state"] == "succeeded"
    (shown,) = site.noted(identity)
    assert shown["event"]["httpMethod"] == method


@row("accepted-early")
async def test_202_comes_before_the_function_ends(site: Site) -> None:
    gate = uuid.uuid4().hex
    identity = await site.enqueue("gated-background", method="POST", headers=TEXT, body=gate.encode())
    assert site.noted(gate) == []
    site.open_gate(gate)
    assert (await site.end(identity))["state"] == "succeeded"
    assert site.noted(gate) == ["POST"]


@row("accepted-early")
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("no-syntax-background", "FunctionError"),
        ("no-import-background", "Error"),
        ("invalid-background", "InvalidResult"),
    ],
)
async def test_what_cannot_run_is_accepted_and_set_aside(site: Site, name: str, kind: str) -> None:
    known = await site.end(await site.enqueue(name))
    assert (known["state"], known["reason"]) == ("dead", "failed")
    assert known["error"]["type"].endswith(kind)


@row("result-hidden")
async def test_what_it_returns_is_kept_as_its_result(site: Site) -> None:
    known = await site.end(await site.enqueue("notes-background"))
    assert (known["result"]["statusCode"], known["result"]["body"]) == (200, "for nobody")


@row("background-event", "context")
async def test_event_and_context_are_those_of_a_synchronous_function(site: Site) -> None:
    rest = "/a%20b?x=1&x=2&y=%20z"
    sent: dict[str, Any] = {
        "method": "POST",
        "headers": f"{JSON}Cookie: a=1\r\nCookie: b=2\r\n",
        "body": '{"a": "ö"}'.encode(),
    }
    identity = await site.enqueue("notes-background", rest, **sent)
    assert (await site.end(identity))["state"] == "succeeded"
    (background,) = site.noted(identity)
    assert background["context"]["awsRequestId"] == identity
    assert abs(background["context"]["remaining"] - 900_000) < 5_000
    synchronous = await site.seen("echo", rest, **sent)
    assert comparable(background, "notes-background") == comparable(synchronous, "echo")


def comparable(shown: dict[str, Any], name: str) -> dict[str, Any]:
    """Event and context without what differs from one invocation to the next."""
    identity = shown["context"]["awsRequestId"]
    event = {key: value for key, value in shown["event"].items() if "eaders" not in key}
    for key in ("path", "rawUrl"):
        event[key] = event[key].replace(f"{PREFIX}/{name}", f"{PREFIX}/NAME")
    headers = [
        {key: value for key, value in shown["event"][which].items() if key != "x-nf-request-id"}
        for which in ("headers", "multiValueHeaders")
    ]
    context = {
        key: value.replace(identity, "ID").replace(name, "NAME") if isinstance(value, str) else value
        for key, value in shown["context"].items()
        if key != "remaining"
    }
    return {"event": event, "headers": headers, "context": context}


@row("client-gone")
@pytest.mark.parametrize("when", ["before the answer", "after the answer"])
async def test_the_client_going_away_does_not_stop_it(site: Site, when: str) -> None:
    gate = uuid.uuid4().hex
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(request(site.path("gated-background"), "POST", TEXT, gate.encode()))
    await writer.drain()
    if when == "after the answer":
        assert (await reader.readline()).startswith(b"HTTP/1.1 202")
    writer.close()
    await writer.wait_closed()
    site.open_gate(gate)
    await eventually(lambda: site.noted(gate) == ["POST"], what="the function has ended")


@row("background-limit")
async def test_it_may_run_for_a_quarter_of_an_hour(site: Site) -> None:
    assert (await site.functions())["notes-background"]["timeout_s"] == 900


@row("background-limit")
async def test_past_its_limit_it_is_ended(site: Site) -> None:
    known = await site.end(await site.enqueue("limited-background"))
    assert (known["state"], known["reason"], known["outcome"]) == ("dead", "timed_out", "timed_out")


async def retrying(site: Site, identity: str) -> dict[str, Any]:
    """What is known once the first attempt has failed."""

    async def failed() -> dict[str, Any] | None:
        known = await site.status(identity)
        return known if known["state"] == "retrying" else None

    known: dict[str, Any] | None = await eventually(failed, what="the first attempt has failed")
    assert known is not None
    return known


@row("retries")
async def test_an_error_is_tried_again_after_a_minute(site: Site) -> None:
    known = await retrying(site, await site.enqueue("fails-background"))
    assert (known["attempt"], known["error"]["type"]) == (1, "TypeError")
    waits = moment(known["next_attempt_at"]) - moment(
        known["finished_at"] or known["attempts"][0]["finished_at"]
    )
    assert 59 < waits.total_seconds() < 62
    listed = (await site.functions())["fails-background"]
    assert (listed["retries"], listed["retry_delays_s"]) == (2, [60, 120])


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@row("retries")
async def test_an_error_is_tried_again_twice(site: Site) -> None:
    async def attempts(fails: int) -> dict[str, Any]:
        body = b'{"fails": %d}' % fails
        identity = await site.enqueue("retried-background", method="POST", headers=JSON, body=body)
        known = await site.end(identity)
        assert known["attempt"] == len(known["attempts"])
        assert site.noted(identity) == [number + 1 for number in range(known["attempt"])]
        return known

    *well, dead = await asyncio.gather(*map(attempts, range(4)))  # at a time: each retry takes a second
    assert [(known["state"], known["attempt"], known["result"]) for known in well] == [
        ("succeeded", number, "done") for number in (1, 2, 3)
    ]
    assert (dead["state"], dead["attempt"], dead["reason"]) == ("dead", 3, "failed")
    assert dead["error"]["message"] == "not yet"


@row("retries")
async def test_it_may_say_never_again(site: Site) -> None:
    known = await site.end(await site.enqueue("hopeless-background"))
    assert (known["state"], known["attempt"]) == ("dead", 1)

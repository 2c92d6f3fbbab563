"""What a synchronous function returns, and what its caller gets: "Results of synchronous functions"."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.e2e.netlify.rows import JAVASCRIPT, PYTHON, javascript, python, row
from tests.e2e.netlify.sites import JSON, Site, Sites
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

RESPONSE_BYTES_MAX = 6_291_456
STREAM_BYTES_MAX = 20_971_520


@dataclass(frozen=True, slots=True)
class Good:
    """A result, and the answer that it makes. `headers`: all values by name."""

    result: dict[str, Any]
    status: int = 200
    body: bytes = b""
    headers: dict[str, list[str]] = field(default_factory=dict)


COOKIES = ["a=1; HttpOnly", "b=2"]
EMPTY = {"content-length": ["0"]}

RESULT = {
    "text": Good({"statusCode": 201, "body": "é"}, 201, "é".encode()),
    "a status as text": Good({"statusCode": "404", "body": "no"}, 404, b"no"),
    "the first status": Good({"statusCode": 200}),
    "the last status": Good({"statusCode": 599}, 599),
    "base64": Good({"statusCode": 200, "body": "AP8=", "isBase64Encoded": True}, body=b"\x00\xff"),
    "not base64": Good({"statusCode": 200, "body": "AP8=", "isBase64Encoded": False}, body=b"AP8="),
    "headers": Good(
        {"statusCode": 200, "headers": {"X-One": "1", "content-type": "text/x-a"}},
        headers={"x-one": ["1"], "content-type": ["text/x-a"]},
    ),
}
SEVERAL = {
    "lists": Good(
        {"statusCode": 200, "multiValueHeaders": {"Set-Cookie": COOKIES}}, headers={"set-cookie": COOKIES}
    ),
    "they win for each name": Good(
        {"statusCode": 200, "headers": {"X-A": "1", "x-b": "2"}, "multiValueHeaders": {"x-a": ["3", "4"]}},
        headers={"x-a": ["3", "4"], "x-b": ["2"]},
    ),
}
BODILESS = {
    "null": Good({"statusCode": 200, "body": None}, headers=EMPTY),
    "missing": Good({"statusCode": 200}, headers=EMPTY),
    "empty": Good({"statusCode": 200, "body": ""}, headers=EMPTY),
    "204": Good({"statusCode": 204, "body": "x"}, 204),
    "304": Good({"statusCode": 304, "body": "x"}, 304),
}
PLAIN = {
    "text": Good({"statusCode": 200, "body": "a"}, body=b"a", headers={"content-type": []}),
    "JSON": Good({"statusCode": 200, "body": "{}"}, body=b"{}", headers={"content-type": []}),
    "nothing": Good({"statusCode": 200}, headers={"content-type": []}),
}
GOOD = {"result": RESULT, "several-values": SEVERAL, "bodiless": BODILESS, "no-invention": PLAIN}


@pytest.mark.parametrize(
    "good",
    [
        pytest.param(good, id=f"{name}: {case}", marks=row(name))
        for name, cases in GOOD.items()
        for case, good in cases.items()
    ],
)
async def test_good_results(site: Site, good: Good) -> None:
    answer = await site.post("returns", good.result)
    assert (answer.status, answer.body, answer.rest) == (good.status, good.body, b"")
    assert {name: answer.values(name) for name in good.headers} == good.headers


NO_STATUSES: list[Any] = [
    *(None, 0, "word", "", "0200", True, [200], 200.5, {}),
    *(-200, 100, 101, 199, 600, 1000, "100", "600"),
]
BAD: dict[str, list[Any]] = {
    "no-result": [None, "text", "", [], [200], 200, True],
    "bad-status": [
        {},
        {"body": "x"},
        *({"statusCode": status} for status in NO_STATUSES),
    ],
    "bad-body": [
        *({"statusCode": 200, "body": body} for body in (1, 0, True, False, {"a": 1}, {}, ["a"], [])),
        {"statusCode": 200, "body": "!", "isBase64Encoded": True},
    ],
    "bad-header": [
        *(
            {"statusCode": 200, "headers": {"x-a": value}}
            for value in ("1\r\nx-injected: 1", "1\nx-injected: 1", "1\rx-injected: 1", "\0", {"b": 1})
        ),
        *(
            {"statusCode": 200, "headers": {name: "1"}}
            for name in ("x-a\r\nx-injected", "x a", "", "x:a", "x-ä", "x-a\0")
        ),
        {"statusCode": 200, "multiValueHeaders": {"x-a": ["1", "2\r\nx-injected: 1"]}},
        {"statusCode": 200, "headers": "x-a: 1"},
    ],
}


@pytest.mark.parametrize(
    "result",
    [
        pytest.param(result, id=f"{name}: {result!a}", marks=row(name))
        for name, results in BAD.items()
        for result in results
    ],
)
async def test_bad_results_are_500_and_nothing_is_injected(site: Site, result: Any) -> None:
    answer = await site.post("returns", result)
    assert (answer.status, answer.rest) == (500, b"")
    assert answer.json["errorType"] == "InvalidResult"
    assert answer.values("x-injected") == answer.values("x-a") == []


@pytest.mark.parametrize(
    "case",
    [
        pytest.param("nothing", marks=row("no-result")),
        pytest.param("bytes", marks=row("bad-body")),
        pytest.param("a status that is no text", marks=row("bad-status")),
    ],
)
async def test_results_that_no_json_can_say(site: Site, case: str) -> None:
    answer = await site.call("odd", f"?case={quote(case)}")
    assert (answer.status, answer.json["errorType"]) == (500, "InvalidResult")


FAILURES = {
    "fails": ("TypeError", "no such thing"),
    "fails?how=object": ("Teapot", "short"),
    "no-import": ("Error", "nowhere_to_be_found"),
    "no-handler": ("HandlerNotFound", "no-handler."),
    "no-syntax": ("FunctionError", "no-syntax."),
    "no-start": ("Error", "it fails while it is loaded"),
}


@row("failure")
@pytest.mark.parametrize("where", FAILURES)
async def test_a_failure_is_500_with_its_type_and_message(site: Site, where: str) -> None:
    name, _, query = where.partition("?")
    answer = await site.call(name, query and f"?{query}")
    assert (answer.status, answer.values("content-type")) == (500, ["application/json"])
    assert answer.json.keys() == {"errorType", "errorMessage", "trace"}
    kind, message = FAILURES[where]
    assert kind in answer.json["errorType"]
    assert message in answer.json["errorMessage"]
    assert all(isinstance(line, str) for line in answer.json["trace"])


@javascript
@row("failure")
@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("text", "string", "only text"),
        ("null", "null", "null"),
        ("nothing", "undefined", "undefined"),
        ("rejects", "RangeError", "rejected"),
        ("rejects with nothing", "undefined", "undefined"),
    ],
)
async def test_anything_may_be_thrown(site: Site, how: str, kind: str, message: str) -> None:
    answer = await site.call("fails", f"?how={quote(how)}")
    assert (answer.status, answer.json["errorType"], answer.json["errorMessage"]) == (500, kind, message)
    assert (await site.call("echo")).status == 200


@python
@row("failure")
async def test_an_exit_is_a_failure_too(site: Site) -> None:
    answer = await site.call("fails", "?how=exit")
    assert (answer.status, answer.json["errorType"]) == (500, "SystemExit")


@row("failure-trace")
async def test_where_in_its_code_it_failed_is_told_to_those_who_develop(
    site: Site, sites: Sites, language: str
) -> None:
    file = {PYTHON: "fails.py", JAVASCRIPT: "fails.js"}[language]
    assert file in "\n".join((await site.call("fails")).json["trace"])
    elsewhere = await sites.settings(language).call("fails")
    assert elsewhere.status == 500
    assert elsewhere.json == {"errorType": "TypeError", "errorMessage": "no such thing"}


@row("failure-head")
@pytest.mark.parametrize("name", ["fails", "no-import", "no-syntax"])
async def test_a_failure_has_no_body_for_head(site: Site, name: str) -> None:
    answer = await site.call(name, method="HEAD")
    assert (answer.status, answer.body, answer.rest) == (500, b"", b"")


@javascript
@row("callbacks")
@pytest.mark.parametrize("how", ["result", "a result later", "undefined and a result"])
async def test_a_result_may_be_called_back(site: Site, how: str) -> None:
    answer = await site.call("callbacks", f"?how={quote(how)}")
    assert (answer.status, answer.body.decode()) == (200, how)


@javascript
@row("callbacks", "failure")
@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("error", "RangeError", "called back"),
        ("an error later", "RangeError", "called back"),
        ("text", "string", "only text"),
        ("nothing", "InvalidResult", "returned nothing"),
        ("never", "InvalidResult", "returned nothing"),
    ],
)
async def test_an_error_may_be_called_back(site: Site, how: str, kind: str, message: str) -> None:
    answer = await site.call("callbacks", f"?how={quote(how)}")
    assert (answer.status, answer.json["errorType"]) == (500, kind)
    assert message in answer.json["errorMessage"]


async def ends_the_worker(site: Site, how: str) -> dict[str, Any]:
    """The answer of a call that does, after which the next one is as ever."""
    answer = await site.call("crashes", f"?how={how}")
    assert (answer.status, answer.values("content-type")) == (500, ["application/json"])
    assert (await site.call("crashes")).status == 200
    said: dict[str, Any] = answer.json
    return said


@row("crash", "failure")
@pytest.mark.parametrize(("how", "end"), [("exit", "status 3"), ("signal", "SIGKILL"), ("fault", "SIG")])
async def test_a_crash_is_500(site: Site, how: str, end: str) -> None:
    said = await ends_the_worker(site, how)
    assert said["errorType"] == "Crashed"
    assert end in said["errorMessage"]


@javascript
@row("crash", "failure")
@pytest.mark.parametrize(
    ("how", "message"),
    [("uncaught", "nobody catches it"), ("unhandled", "nobody handles it"), ("starves", "nothing is left")],
)
async def test_what_nobody_awaits_is_500(site: Site, how: str, message: str) -> None:
    assert message in (await ends_the_worker(site, how))["errorMessage"]


@row("time-limit")
@pytest.mark.parametrize("how", ["never", "busy", "waits"])
async def test_past_its_own_limit_it_is_504(site: Site, how: str) -> None:
    answer = await site.call("limited", f"?how={how}")
    assert (answer.status, answer.values("content-type")) == (504, ["application/problem+json"])
    assert (answer.json["code"], answer.json["detail"]) == ("timed_out", "Task timed out after 0.50 seconds")

    async def is_called_again() -> bool:
        return (await site.call("limited")).status == 200

    # The start of the next worker may take as long as the limit.
    await eventually(is_called_again, what="the next call found another worker")


@row("time-limit")
async def test_past_the_operators_limit_it_is_504(sites: Sites, language: str) -> None:
    answer = await sites.settings(language).call("waits")
    assert (answer.status, answer.json["detail"]) == (504, "Task timed out after 4.00 seconds")


@row("time-limit")
async def test_the_limit_is_a_minute_if_nothing_else_is_said(site: Site) -> None:
    assert (await site.functions())["echo"]["timeout_s"] == 60


@row("response-size")
async def test_a_response_may_have_six_mebibytes_and_no_byte_more(site: Site) -> None:
    answer = await site.call("sized", f"?bytes={RESPONSE_BYTES_MAX}")
    assert (answer.status, len(answer.body)) == (200, RESPONSE_BYTES_MAX)
    answer = await site.call("sized", f"?bytes={RESPONSE_BYTES_MAX + 1}")
    assert (answer.status, answer.json["errorType"]) == (500, "ResponseTooLarge")


@row("response-size")
async def test_bit_by_bit_it_may_have_twenty(site: Site) -> None:
    async with httpx.AsyncClient(base_url=site.url, timeout=60) as client:
        answer = await client.get(f"{site.path('sized')}?streamed={STREAM_BYTES_MAX}")
        assert (answer.status_code, len(answer.content)) == (200, STREAM_BYTES_MAX)
        with pytest.raises(httpx.RemoteProtocolError):  # cut, so that nobody takes it for the whole
            await client.get(f"{site.path('sized')}?streamed={STREAM_BYTES_MAX + 1}")


@row("result")
async def test_a_body_of_json_goes_back_as_it_is(site: Site) -> None:
    answer = await site.call(
        "returns", method="PUT", headers=JSON, body=b'{"statusCode": 202, "body": "{\\"a\\": 1}"}'
    )
    assert (answer.status, answer.body) == (202, b'{"a": 1}')

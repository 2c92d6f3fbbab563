"""The gateway's pure rules: admission, problems, names, client addresses, the shapes of the API."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.admission import Admitted, Unknown, admit
from gateway.api.shapes import invocation_shape, iso_time, result_shape, target_shapes
from gateway.asgi import OWN_HEADERS
from gateway.background import Backlog, StoreRoom
from gateway.problems import KINDS, Code, Problem, code_of_status, problem_answer
from gateway.request import (
    Head,
    bad_head,
    client_of,
    function_name,
    is_invocation,
    origin_form,
    read_head,
    request_of,
)
from gateway.response import outcome_answer, wire_headers
from quarterhour.broker.port import Beat, Depth, Run, Status, StoreUse
from quarterhour.function import Manifest, Mode
from quarterhour.lifecycle import State
from quarterhour.options import networks
from quarterhour.outcome import Response, Succeeded
from quarterhour.record import Record
from quarterhour.retry import RetryPolicy

TRUSTED = networks().read("10.0.0.0/8,::1", Path())


def manifest(*, background: bool = False) -> Manifest:
    return Manifest(name="f", runtime="python", background=background, timeout_s=1, retry=RetryPolicy())


def decide(known: Manifest | None, **values: Any) -> Any:
    usual: dict[str, Any] = {
        "connected": True,
        "ready": True,
        "waiting": 0,
        "waiting_max": 3,
        "left_bytes": None,
        "call_scheduled": False,
    }
    return admit(known, **{**usual, **values})


def test_a_known_function_is_admitted() -> None:
    assert decide(manifest()) == Admitted(manifest=manifest())
    assert decide(manifest(background=True), waiting=2) == Admitted(manifest=manifest(background=True))


@pytest.mark.parametrize("background", [False, True])
def test_a_function_with_a_schedule_is_called_only_where_that_is_allowed(background: bool) -> None:
    scheduled = replace(manifest(background=background), schedule="@daily")
    assert decide(scheduled) == Unknown()
    assert decide(scheduled, call_scheduled=True) == Admitted(manifest=scheduled)


def test_an_unknown_function_is_unknown() -> None:
    assert decide(None) == Unknown()


@pytest.mark.parametrize("known", [None, manifest(), manifest(background=True)])
def test_nothing_is_unknown_or_admitted_before_the_broker_was_heard(known: Manifest | None) -> None:
    assert decide(known, connected=False).code is Code.BROKER_UNAVAILABLE
    assert decide(known, ready=False).code is Code.NOT_READY


def test_at_the_limit_of_waiting_only_background_functions_are_full() -> None:
    assert decide(manifest(background=True), waiting=3).full.code is Code.TOO_MANY_WAITING
    assert decide(manifest(), waiting=3) == Admitted(manifest=manifest())


@pytest.mark.parametrize(("left_bytes", "full"), [(None, False), (1, False), (0, True), (-5, True)])
def test_without_room_in_the_store_only_background_functions_are_full(
    left_bytes: int | None, full: bool
) -> None:
    decision = decide(manifest(background=True), left_bytes=left_bytes)
    assert (decision.full is not None and decision.full.code is Code.STORE_FULL) is full
    assert decide(manifest(), left_bytes=left_bytes) == Admitted(manifest=manifest())


def test_a_tenth_of_the_store_is_kept() -> None:
    room = StoreRoom()
    assert room.left_bytes is None
    room.replace(StoreUse(used_bytes=10**9), 0)
    assert room.left_bytes is None
    room.replace(StoreUse(used_bytes=500, limit_bytes=1000), room.mark())
    assert room.left_bytes == 400
    room.begin(150)
    room.end(150, stored=True)
    seen = room.mark()
    room.begin(100)  # accepted while the broker was asked
    assert room.left_bytes == 150
    room.replace(StoreUse(used_bytes=650, limit_bytes=1000), seen)
    assert room.left_bytes == 150
    room.begin(200)
    assert room.left_bytes == -50
    room.end(200, stored=False)  # it failed
    assert room.left_bytes == 150


def test_every_code_has_one_status_and_title() -> None:
    assert set(KINDS) == set(Code)
    assert all(400 <= kind.status < 600 and kind.title for kind in KINDS.values())


def test_busy_and_away_say_when_to_come_back() -> None:
    for code, kind in KINDS.items():
        assert (kind.retry_after_s is not None) == (kind.status in {429, 503}), code


def test_a_problem_is_written_as_rfc_9457_says() -> None:
    answer = problem_answer(Problem(code=Code.BUSY, detail="All busy."))
    assert json.loads(answer.body) == {
        "type": "urn:quarterhour:problem:busy",
        "title": "All runners are busy",
        "status": 503,
        "detail": "All busy.",
        "code": "busy",
    }
    headers = {b"content-type": b"application/problem+json", b"retry-after": b"1"}
    assert dict(answer.headers) == {**headers, **dict(OWN_HEADERS)}


@pytest.mark.parametrize("status", [400, 404, 405, 408, 413, 418, 500, 599])
def test_every_status_of_a_framework_has_a_code(status: int) -> None:
    assert KINDS[code_of_status(status)].status // 100 == status // 100


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (None, None),
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000.25, "2023-11-14T22:13:20.250Z"),
        (1_700_000_000.9999, "2023-11-14T22:13:20.999Z"),
    ],
)
def test_times_are_iso_8601_in_utc_with_milliseconds(moment: float | None, text: str | None) -> None:
    assert iso_time(moment) == text


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/hello", "hello"),
        (b"/hello/", "hello"),
        (b"/hello/../x", "hello"),
        (b"/hello%2Fx", "hello"),
        (b"/hello%2fx", "hello"),
        (b"/a-b_C9", "a-b_C9"),
        (b"/" + b"a" * 128, "a" * 128),
        (b"/" + b"a" * 129, None),
        (b"/hello%2", None),
        (b"/hello%", None),
        (b"/hello.py", None),
        (b"/hello\n", None),
        (b"/..", None),
        (b"/*", None),
        (b"/", None),
        (b"", None),
        (b"//hello", None),
        (b"/h\xc3\xa9", None),
    ],
)
def test_names_are_taken_from_the_raw_path(path: bytes, name: str | None) -> None:
    assert function_name(b"/.netlify/functions" + path) == name


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        (b"/.netlify/functions", True),
        (b"/.netlify/functions/", True),
        (b"/.netlify/functions/x", True),
        (b"/.netlify/functionsx", False),
        (b"/xnetlify/functions/x", False),
        (b"/.Netlify/functions/x", False),
        (b"/", False),
        (b"*", False),
    ],
)
def test_functions_live_at_one_place(path: bytes, ours: bool) -> None:
    assert is_invocation(path) is ours


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/x", b"/x"),
        (b"http://h/x", b"/x"),
        (b"HTTPS://h:1", b"/"),
        (b"*", b"*"),
        (b"h:80", b"h:80"),
        (b"", b""),
    ],
)
def test_a_target_may_name_its_host(target: bytes, path: bytes) -> None:
    assert origin_form(target) == path


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ([], "10.0.0.1"),
        ([b"203.0.113.9"], "203.0.113.9"),
        ([b"6.6.6.6, 203.0.113.9"], "203.0.113.9"),
        ([b"6.6.6.6", b"203.0.113.9, 10.1.2.3"], "203.0.113.9"),
        ([b"10.0.0.7, 10.0.0.8"], "10.0.0.7"),
        ([b"203.0.113.9:4711"], "203.0.113.9"),
        ([b"[2001:db8::1]:4711"], "2001:db8::1"),
        ([b"2001:db8::1"], "2001:db8::1"),
        ([b"203.0.113.9, nonsense"], "10.0.0.1"),
        ([b"nonsense, 203.0.113.9"], "203.0.113.9"),
        ([b""], "10.0.0.1"),
        ([b"6.6.6.6\xff"], "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_one_that_is_no_trusted_proxy(forwarded: list[bytes], client: str) -> None:
    assert client_of("10.0.0.1", forwarded, TRUSTED) == client


def scope(*headers: tuple[bytes, bytes], **values: Any) -> dict[str, Any]:
    return {
        "method": "GET",
        "http_version": "1.1",
        "raw_path": b"/x",
        "query_string": b"a=1",
        "scheme": "http",
        "client": ("198.51.100.7", 1),
        "headers": [(b"host", b"h"), *headers],
        **values,
    }


def problem_of(*headers: tuple[bytes, bytes], header_bytes_max: int = 1000, **values: Any) -> Code | None:
    request = scope(*headers, **values)
    problem = bad_head(read_head(request), request, request["raw_path"], header_bytes_max)
    return problem.code if problem else None


def test_an_ordinary_head_is_fine() -> None:
    assert problem_of((b"content-length", b"5")) is None
    assert problem_of((b"transfer-encoding", b"Chunked")) is None


@pytest.mark.parametrize(
    ("headers", "values", "code"),
    [
        ([(b"content-length", b"5"), (b"transfer-encoding", b"chunked")], {}, Code.AMBIGUOUS_LENGTH),
        ([(b"transfer-encoding", b"gzip, chunked")], {}, Code.UNKNOWN_TRANSFER_ENCODING),
        ([(b"transfer-encoding", b"chunked")], {"http_version": "1.0"}, Code.BAD_REQUEST),
        ([(b"content-length", b"+5")], {}, Code.BAD_REQUEST),
        ([(b"content-length", b"5, 5")], {}, Code.BAD_REQUEST),
        ([(b"host", b"other")], {}, Code.BAD_REQUEST),
        ([], {"headers": []}, Code.BAD_REQUEST),
        ([], {"headers": [], "http_version": "1.0"}, None),
        ([], {"method": "CONNECT"}, Code.METHOD_NOT_ALLOWED),
        ([], {"headers": [], "http_version": "2.0"}, Code.BAD_REQUEST),
        ([], {"http_version": "1.2"}, Code.BAD_REQUEST),
        ([], {"raw_path": b""}, Code.BAD_REQUEST),
        ([], {"raw_path": b"*"}, Code.BAD_REQUEST),
        ([], {"raw_path": b"/a#b"}, Code.BAD_REQUEST),
        ([], {"query_string": b"#"}, Code.BAD_REQUEST),
    ],
)
def test_what_is_wrong_with_a_head(
    headers: list[tuple[bytes, bytes]], values: dict[str, Any], code: Code | None
) -> None:
    assert problem_of(*headers, **values) is code


@pytest.mark.parametrize(
    "host",
    [
        b"h",
        b"h:1",
        b"h:",
        b"a-b.c_d.example.",
        b"127.0.0.1:65535",
        b"[::1]:80",
        b"[::ffff:1.2.3.4]",
        b"a" * 63,
    ],
)
def test_a_host_is_a_name_or_an_address(host: bytes) -> None:
    assert problem_of(headers=[(b"host", host)]) is None


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b".",
        b"a..b",
        b".a",
        b"h:1:2",
        b"h:x",
        b"a b",
        b"a/b",
        b"u@h",
        b"[",
        b"[]",
        b"::1",
        b"\xe9",
        b"a" * 64,
    ],
)
def test_what_is_no_host_is_refused(host: bytes) -> None:
    # The framework behind the edge fails on some of them, with a traceback.
    assert problem_of(headers=[(b"host", host)]) is Code.BAD_REQUEST


def test_the_header_block_is_counted_whole() -> None:
    size = read_head(scope()).size_bytes
    assert size == len(b"/x") + len(b"a=1") + len(b"host") + len(b"h") + 4
    assert problem_of(header_bytes_max=size) is None
    assert problem_of(header_bytes_max=size - 1) is Code.HEADERS_TOO_LARGE


def test_forwarded_headers_of_anybody_are_not_believed() -> None:
    request = scope((b"x-forwarded-for", b"6.6.6.6"), (b"x-forwarded-proto", b"https"))
    got = request_of(request, read_head(request), b"/x", request_id="id", trusted=TRUSTED, params={})
    assert (got.client, got.scheme) == ("198.51.100.7", "http")


def test_a_client_without_an_address_has_an_empty_one() -> None:
    request = scope(client=None)
    got = request_of(request, read_head(request), b"/x", request_id="id", trusted=TRUSTED, params={})
    assert got.client == ""
    assert ("x-nf-request-id", "id") in got.headers


@pytest.mark.parametrize(
    ("value", "trace"),
    [(b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", True), (b"00-x", False), (b"", False), (None, False)],
)
def test_only_a_trace_context_is_one(value: bytes | None, trace: bool) -> None:
    assert (Head(pairs=[], size_bytes=0, traceparent=value).trace is not None) is trace


def test_a_bodiless_status_has_no_length() -> None:
    reply = Succeeded(response=Response(status=204, body=b"x"))
    answer = outcome_answer(reply, expose_errors=False, body_bytes_max=10)
    assert answer.body == b""
    assert b"content-length" not in dict(wire_headers(answer, request_id=None))


def test_a_backlog_counts_what_was_accepted_since_it_was_asked_for() -> None:
    backlog = Backlog()
    for _ in range(2):
        backlog.begin("f")
        backlog.end("f", stored=True)
    seen = backlog.mark()
    backlog.begin("f")  # accepted while the broker was asked
    assert backlog.waiting("f") == 3
    backlog.replace({"f": Depth(waiting=10)}, seen)
    assert backlog.waiting("f") == 11
    backlog.replace({"f": Depth(waiting=4, leased=100, delayed=6)}, {})
    assert backlog.waiting("f") == 11
    backlog.end("f", stored=False)  # it failed
    assert backlog.waiting("f") == 10
    backlog.replace({"f": Depth()}, backlog.mark())
    assert (backlog.waiting("f"), backlog.waiting("g")) == (0, 0)


def test_what_was_on_its_way_while_the_broker_was_asked_stays_counted_until_it_is_asked_again() -> None:
    backlog = Backlog()
    backlog.begin("f")
    seen = backlog.mark()
    backlog.end("f", stored=True)
    backlog.replace({"f": Depth()}, seen)  # it was asked a moment too early
    assert backlog.waiting("f") == 1
    backlog.replace({"f": Depth(waiting=1)}, backlog.mark())
    assert backlog.waiting("f") == 1


def test_results_are_values_or_the_beginning_of_their_text() -> None:
    assert result_shape(None) == {"result": None}
    assert result_shape(b"null") == {"result": None}
    assert result_shape(b'{"a": [1]}') == {"result": {"a": [1]}}
    assert result_shape(b'{"cut') == {"result": '{"cut', "result_truncated": True}
    large = result_shape(b'"' + b"x" * 70_000 + b'"')
    assert large["result_truncated"] is True
    assert len(large["result"]) == 65_536
    wide = result_shape(("x" + "\u2603" * 30_000).encode())  # cut inside a character
    assert wide["result"].strip("x\u2603") == ""


def record(state: State) -> Record:
    return Record(
        id="id", function="f", mode=Mode.BACKGROUND, state=state, attempt=1, accepted_at=1.0, due_at=1.0
    )


def test_a_run_makes_a_waiting_invocation_a_running_one_but_not_an_ended_one() -> None:
    run = Run(runner="r", attempt=2, started_at=5.0)
    running = invocation_shape(Status(record=record(State.WAITING), run=run))
    assert (running["state"], running["attempt"], running["runner"]) == ("running", 2, "r")
    ended = invocation_shape(Status(record=record(State.SUCCEEDED), run=run))
    assert (ended["state"], ended["attempt"], ended["runner"]) == ("succeeded", 1, None)


def test_runners_without_metrics_are_no_targets() -> None:
    beats = [
        Beat(runner="b", functions=(), slots=1, metrics="h:2"),
        Beat(runner="a", functions=(), slots=1),
        Beat(runner="c", functions=(), slots=1, metrics="h:1"),
    ]
    assert target_shapes(beats) == [
        {"targets": ["h:1"], "labels": {"runner": "c"}},
        {"targets": ["h:2"], "labels": {"runner": "b"}},
    ]

# ruff: noqa: E501
"""What people and clients write (routes, schedules, options, tables, headers): taken, or refused in words."""

import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.delay import AHEAD_S_MAX, due_at_of
from gateway.problems import Problem
from gateway.request import Head, bad_head, is_invocation, origin_form, read_head, request_of
from gateway.routes import Routes
from quarterhour.errors import SettingsError
from quarterhour.function import Manifest, Mode
from quarterhour.invocation import Invocation, decode_invocation, encode_invocation
from quarterhour.project_file import read_project_file
from quarterhour.route import compiled
from quarterhour.route import example as example_of
from quarterhour.schedule import is_schedule, last_run, next_run, plan
from quarterhour.settings import (
    OPTIONS,
    GatewaySettings,
    UpSettings,
    load,
    options_of,
    to_environment,
)
from runner.manifest import Limits, Said, read_manifest
from runner.project_tables import Project
from tests.fuzzing import BUDGET
from tests.process.gateway_rig import function

NOW = 1_700_000_000.0

PATTERN = st.lists(
    st.sampled_from(["/", "a", ":id", "*", "(", ")", "{", "}", "?", "+", "[", "]", "\\", "(.*)", "(a|b)", "(a+)+", ":", "é", "%2f",
                     "..", ".", "-", "|", "^", "$", "(?:", "a" * 50, "1", "&", " ", "\0"]), max_size=14,
).map(lambda pieces: "/" + "".join(pieces))  # fmt: skip
PATHS = st.lists(
    st.sampled_from(["/", "a", "b", "..", ".", "%2f", "%", "%zz", "a" * 60, "é", "\0", "1", "-"]), max_size=14
).map(lambda pieces: "/" + "".join(pieces))


@BUDGET
@given(PATTERN, PATHS)
def test_a_pattern_is_refused_or_matches_in_no_time(text: str, path: str) -> None:
    with suppress(ValueError):
        pattern = compiled(text)
        began = time.process_time()
        params = pattern.match(path)
        assert params is None or all(isinstance(value, str) for value in params.values())
        assert time.process_time() - began < 0.5
        tried = example_of(text)
        assert tried is None or pattern.match(tried) is not None


@pytest.mark.parametrize(
    "text", ["/(a+)+b", "/(a|a)*b", "/(.*)(.*)(.*)(.*)b", "/:a(x*)x*x*x*x*x*b", "/*/*/*/*/*/*/*/b"]
)
def test_no_pattern_takes_long_on_any_path(text: str) -> None:
    pattern = compiled(text)
    for path in ("/" + "a" * 8000, "/" + "x" * 8000, "/a" * 4000, "/" * 8000):
        began = time.process_time()
        pattern.match(path)
        assert time.process_time() - began < 1.0


@BUDGET
@given(PATTERN | st.text(), st.binary(max_size=40).map(lambda rest: b"/" + rest))
def test_any_manifest_makes_a_table_of_routes(path: str, asked: bytes) -> None:
    routes = Routes(
        [function("one", path=(path,), excluded_path=(path + "x",)), function("two", path=("/a/:b",))]
    )
    routes.find(asked, "GET")


FIELDS = st.lists(
    st.sampled_from(["*", "*/5", "0", "59", "60", "1-5", "5-1", "L", "W", "?", "1,2,3", "MON", "1#2", "5L", "", "-", "1-", "a", "*/0",
                     "99999999999999999999", "31", "2", "29", "٣"]), min_size=1, max_size=7,
).map(" ".join)  # fmt: skip


@BUDGET
@given(FIELDS | st.text(max_size=40), st.floats(0, 4e9))
@example("0 0 31 2 *", NOW)
@example("0 0 29 2 *", 4e9)
@example("* * * * * *", 4e9)
def test_a_text_is_a_schedule_with_a_next_moment_or_none(text: str, now: float) -> None:
    began = time.process_time()
    valid = is_schedule(text)
    if valid:
        after = next_run(text, now)
        assert after is None or after > now
        before = last_run(text, now)
        assert before is None or before <= now
        planned = plan(text, placed_until=None, now=now)
        assert planned is None or all(moment > now for moment in planned.firings)
    assert time.process_time() - began < 2.0


VALUES = st.one_of(
    st.text(max_size=20), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.text(max_size=5), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from(["", "1", "-1", "1e400", "nan", "inf", "1_000", "٣", "0x10", " 1 ", "9" * 5000, "10.0.0.0/8", "::1/128", "1.5",
                     "true", "on", "nats://u:p@h:1", "tls://", "a\0b", "~", "~nobody/x", "../..", "a,b", "\n", "\ud800"]),
)  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: str(option.name))
@BUDGET
@given(value=VALUES)
def test_a_value_of_an_option_is_refused_or_survives_being_written(option: Any, value: object) -> None:
    base = Path("/nowhere")
    try:
        read = option.kind.read(value, base)
    except (ValueError, OverflowError):
        return
    assert option.kind.read(option.kind.write(read), base) == read


@BUDGET
@given(values=st.dictionaries(st.sampled_from(sorted(OPTIONS)), VALUES, max_size=3))
def test_settings_are_whole_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, object]
) -> None:
    given = {OPTIONS[field].variable: value for field, value in values.items() if isinstance(value, str)}
    try:
        loaded = load(UpSettings, {}, environment=given, directory=Path("/"))
    except SettingsError as error:
        assert str(error).endswith(".")  # noqa: PT017
        return
    environment = {"QUARTERHOUR_BROKER": "nats://x", **to_environment(loaded, GatewaySettings)}
    child = load(GatewaySettings, {}, environment=environment, directory=Path("/"))
    for option, _ in options_of(GatewaySettings):
        if option.field != "broker" and hasattr(loaded, option.field):  # `up` sets some by itself
            assert getattr(child, option.field) == getattr(loaded, option.field)


@BUDGET
@given(values=st.dictionaries(st.sampled_from(["path", "schedule", "timeout", "retries", "retry_delay", "memory", "method", "background",
                                               "environment", "returned_status", "concurrency", "excluded_path", "x"])
                              | st.text(max_size=5), VALUES, max_size=4), in_source=st.booleans())  # fmt: skip
def test_whatever_a_function_says_is_a_manifest(values: dict[Any, Any], in_source: bool) -> None:
    reading = read_manifest(
        "f",
        "python",
        [Said(place="here", values=values, in_source=in_source)],
        Limits(synchronous_s=60, background_s=900),
    )
    assert Manifest.from_json(reading.manifest.to_json()) == reading.manifest


@BUDGET
@given(st.binary(max_size=80) | st.text(alphabet='[]"=.\n# afunctions*?12{}', max_size=60).map(str.encode))
def test_a_project_file_is_read_or_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "quarterhour.toml"
    path.write_bytes(data)
    folder = path.parent / "functions"
    try:
        project = Project(read_project_file(path), folder=folder, working_directory=path.parent)
    except SettingsError as error:
        assert str(error).endswith(".")  # noqa: PT017
        return
    project.warnings([])


TIMES = st.text(max_size=30) | st.lists(
    st.sampled_from(["P", "T", "1", "9" * 9, "D", "H", "M", "S", "Y", "W", "-", "+", ".", ",", "Z", ":", "2030-01-31T08:00:00Z", "1.5", "e9",
                     "٣", " ", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59", "PT1S", "P1Y", "nan", "inf"]), max_size=6,
).map("".join)  # fmt: skip


@BUDGET
@given(TIMES, st.booleans())
@example("P99999999999999Y", True)
@example("0001-01-01T00:00:00+23:59", False)
def test_a_delay_is_a_moment_or_a_problem(text: str, delay: bool) -> None:
    value = (text.encode("utf-8", "replace"),)
    head = Head(pairs=[], size_bytes=0, delay=value if delay else (), at=() if delay else value)
    due_at = due_at_of(head, function("f-background"), now=NOW)
    assert isinstance(due_at, Problem) or (
        due_at is not None and math.isfinite(due_at) and due_at <= NOW + AHEAD_S_MAX
    )


NAMES = st.sampled_from([b"host", b"content-length", b"transfer-encoding", b"x-forwarded-for", b"x-forwarded-proto", b"traceparent",
                         b"client-ip", b"x-nf-request-id", b"x-quarterhour-delay", b"cookie"]) | st.binary(max_size=6)  # fmt: skip
SCOPES = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["GET", "POST", "CONNECT"]),
        "http_version": st.sampled_from(["1.0", "1.1", "2", "9.9"]),
        "raw_path": st.binary(max_size=12).map(lambda rest: b"/" + rest) | st.binary(max_size=8),
        "query_string": st.binary(max_size=12),
        "scheme": st.just("http"),
        "client": st.sampled_from([("10.0.0.1", 1), ("::ffff:10.0.0.1", 1), ("", 0), None]),
        "headers": st.lists(st.tuples(NAMES, st.binary(max_size=12)), max_size=6),
    }
)
TRUSTED = OPTIONS["trusted_proxies"].kind.read("10.0.0.0/8", Path())


@BUDGET
@given(SCOPES)
def test_any_request_is_refused_or_becomes_an_envelope(scope: dict[str, Any]) -> None:
    head = read_head(scope)
    raw_path = origin_form(scope["raw_path"])
    is_invocation(raw_path)
    if bad_head(head, scope, raw_path, 1000) is not None:
        return
    request = request_of(scope, head, raw_path, request_id="i", trusted=TRUSTED, params={})
    # What is the gateway's to say is said once, by it.
    for name in ("client-ip", "x-nf-client-connection-ip", "x-nf-request-id"):
        assert [key for key, _ in request.headers].count(name) == 1
    invocation = Invocation(
        id="i",
        function="f",
        mode=Mode.SYNCHRONOUS,
        attempt=1,
        accepted_at=1.0,
        due_at=1.0,
        request=request,
        body=None,
        trace=head.trace,
    )
    assert decode_invocation(encode_invocation(invocation)) == invocation

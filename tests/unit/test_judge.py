"""Judging: the results that Netlify's clients know, the verdicts on background functions, and garbage."""

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterhour.function import Mode
from quarterhour.outcome import Error, Failed, Outcome, Response, Succeeded
from quarterhour.record import RESULT_BYTES_MAX
from quarterhour.reply import decode_reply, encode_reply
from runner.judge import HEADERS_BYTES_MAX, RETRY_AFTER_S_MAX, judge

Header = dict[str, Any]

LATER = [Mode.BACKGROUND, Mode.SCHEDULED]


def returned(status: Any = 200, *, body: Any = "text", **more: Any) -> Header:
    return {
        "kind": "returned",
        "shape": "object",
        "statusCode": status,
        "headers": None,
        "multiValueHeaders": None,
        "body": body,
        **more,
    }


def answer(header: Header, body: bytes = b"") -> Outcome:
    return judge(header, body, mode=Mode.SYNCHRONOUS, returned_status="fail")


def response(header: Header, body: bytes = b"") -> Response:
    outcome = answer(header, body)
    assert isinstance(outcome, Succeeded), outcome
    return outcome.response


def invalid(outcome: Outcome) -> str:
    """The sentence of an invalid result."""
    assert isinstance(outcome, Failed), outcome
    assert outcome.error.type == "InvalidResult"
    assert outcome.error.message.endswith(".")
    assert not outcome.retry, "the work was done, and would be done again"
    return outcome.error.message


def headers_of(**given: Any) -> list[tuple[str, str]]:
    return list(response(returned(**given)).headers)


# The response of a synchronous call


def test_the_response_is_as_it_says() -> None:
    header = returned(201, headers={"Content-Type": "text/plain"})
    assert response(header, b"made") == Response(
        status=201, headers=(("content-type", "text/plain"),), body=b"made"
    )


@pytest.mark.parametrize(
    ("raw", "status"), [(200, 200), (599, 599), (404, 404), ("201", 201), ("599", 599), (200.0, 200)]
)
def test_a_status_may_be_a_number_or_a_numeric_string(raw: Any, status: int) -> None:
    assert response(returned(raw)).status == status


@pytest.mark.parametrize(
    "raw",
    [
        None, 0, 1, 99, 100, 101, 199, 600, 1000, -200, 10**30, 200.5, 1e300, True, False, "", "ok", "0",
        "199", "600", " 200", "200 ", "0200", "2e2", "+200", "٢٠٠", "200.0", [200], {"status": 200},
    ],
)  # fmt: skip
def test_what_is_no_status_is_an_error(raw: Any) -> None:
    assert "statusCode" in invalid(answer(returned(raw)))


def test_a_missing_status_is_an_error() -> None:
    header = returned()
    del header["statusCode"]
    assert invalid(answer(header))


@pytest.mark.parametrize(
    ("shape", "said"), [("nothing", "nothing"), ("other", "no object"), (None, "no object")]
)
def test_only_an_object_is_a_result(shape: Any, said: str) -> None:
    assert said in invalid(answer({"kind": "returned", "shape": shape}))


@pytest.mark.parametrize("kind", ["text", "base64"])
def test_a_body_is_sent_as_its_bytes(kind: str) -> None:
    assert response(returned(body=kind), b"\x00\xff").body == b"\x00\xff"


def test_a_body_that_is_none_is_empty() -> None:
    assert response(returned(body="none"), b"stray").body == b""


@pytest.mark.parametrize("kind", ["invalid", None, 5, ["text"], {}])
def test_a_body_neither_text_nor_empty_is_an_error(kind: Any) -> None:
    assert '"body"' in invalid(answer(returned(body=kind), b"x"))


@pytest.mark.parametrize("status", [204, 304, "204"])
def test_204_and_304_never_carry_a_body(status: Any) -> None:
    assert response(returned(status), b"x").body == b""


def test_no_content_type_is_invented() -> None:
    assert headers_of() == []
    assert headers_of(headers={}, multiValueHeaders={}) == []


# Its headers


def test_multi_value_headers_win_per_name_one_line_for_each_value() -> None:
    pairs = headers_of(
        headers={"Set-Cookie": "a=1", "X-Kept": "1"},
        multiValueHeaders={"set-cookie": ["b=2", "c=3"], "X-More": ["m"]},
    )
    assert sorted(pairs) == [
        ("set-cookie", "b=2"),
        ("set-cookie", "c=3"),
        ("x-kept", "1"),
        ("x-more", "m"),
    ]
    assert [value for name, value in pairs if name == "set-cookie"] == ["b=2", "c=3"]


def test_of_names_that_differ_in_case_the_last_one_counts() -> None:
    assert headers_of(headers={"X-A": "1", "x-a": "2"}) == [("x-a", "2")]


def test_an_empty_list_takes_a_header_away() -> None:
    assert headers_of(headers={"x-a": "1"}, multiValueHeaders={"X-A": []}) == []


def test_a_single_value_will_do_where_a_list_is_expected() -> None:
    assert headers_of(multiValueHeaders={"x-a": "1"}) == [("x-a", "1")]


@pytest.mark.parametrize(
    ("raw", "text"),
    [("", ""), (5, "5"), (0, "0"), (-1, "-1"), (1.5, "1.5"), (2.0, "2"), (True, "true"), (False, "false")],
)
def test_numbers_and_booleans_become_text(raw: Any, text: str) -> None:
    assert headers_of(headers={"x-a": raw}) == [("x-a", text)]
    assert headers_of(multiValueHeaders={"x-a": [raw, raw]}) == [("x-a", text), ("x-a", text)]


def test_null_is_no_header() -> None:
    assert headers_of(headers={"x-a": None, "x-b": "1"}) == [("x-b", "1")]
    assert headers_of(headers={"x-a": "1"}, multiValueHeaders={"x-a": None}) == [("x-a", "1")]
    assert headers_of(multiValueHeaders={"x-a": [None, "1"]}) == [("x-a", "1")]


def test_space_around_a_value_is_not_part_of_it() -> None:
    assert headers_of(headers={"x-a": " \ta b\t "}) == [("x-a", "a b")]


@pytest.mark.parametrize("value", ["Zoë", "€ and 日本", "a\tb", "😀"])
def test_any_character_may_be_in_a_value(value: str) -> None:
    assert headers_of(headers={"x-a": value}) == [("x-a", value)]


@pytest.mark.parametrize(
    "value",
    [
        "a\r\nx-injected: 1",
        "a\nb",
        "a\rb",
        "a\x00b",
        "\n",
        "a\n",
        "\x0b",
        "\x1b[0m",
        "\x7f",
        "\ud800",
        "a\udfff",
    ],
)
def test_what_would_end_a_line_is_an_error(value: str) -> None:
    assert "x-a" in invalid(answer(returned(headers={"x-a": value})))
    assert "x-a" in invalid(answer(returned(multiValueHeaders={"x-a": ["fine", value]})))


@pytest.mark.parametrize("name", ["", " ", "a b", "a:", "a\r\nb", "a\x00", "ü", "(a)", "a,b", "x-a\n", '"'])
def test_a_bad_header_name_is_an_error(name: str) -> None:
    assert "name" in invalid(answer(returned(headers={name: "1"})))
    assert "name" in invalid(answer(returned(multiValueHeaders={name: ["1"]})))


@pytest.mark.parametrize("value", [["a"], {"a": 1}, 10**30])
def test_a_value_that_is_no_text_is_an_error(value: Any) -> None:
    assert "x-a" in invalid(answer(returned(headers={"x-a": value})))
    assert "x-a" in invalid(answer(returned(multiValueHeaders={"x-a": [value]})))


@pytest.mark.parametrize("raw", ["x-a: 1", ["x-a"], 5, True])
def test_headers_that_are_no_object_are_an_error(raw: Any) -> None:
    assert '"headers"' in invalid(answer(returned(headers=raw)))
    assert '"multiValueHeaders"' in invalid(answer(returned(multiValueHeaders=raw)))


@pytest.mark.parametrize(
    "name",
    ["Content-Length", "connection", "Transfer-Encoding", "Keep-Alive", "TE", "Trailer", "Upgrade"],
)
def test_headers_of_the_connection_are_not_the_functions(name: str) -> None:
    assert headers_of(headers={name: "5", "x-a": "1"}) == [("x-a", "1")]
    assert headers_of(multiValueHeaders={name: ["5"]}) == []


def test_headers_have_a_limit() -> None:
    fits = {"x-a": "a" * (HEADERS_BYTES_MAX - 3)}
    assert len(headers_of(headers=fits)) == 1
    fits["x-a"] += "a"
    assert str(HEADERS_BYTES_MAX) in invalid(answer(returned(headers=fits)))


def test_a_long_name_repeated_does_not_get_past_the_limit() -> None:
    assert invalid(answer(returned(multiValueHeaders={"x" * 10_000: ["1"] * 10_000})))


# Background and scheduled functions


def later(header: Header, body: bytes = b"", status: Literal["fail", "ignore"] = "fail") -> list[Outcome]:
    return [judge(header, body, mode=mode, returned_status=status) for mode in LATER]


def test_nothing_is_a_success() -> None:
    assert later({"kind": "returned", "shape": "nothing"}) == [Succeeded(value=None)] * 2


@pytest.mark.parametrize("value", [b"[1,2]", b'"done"', b"5", b"false", b'{"a":1}'])
def test_any_json_value_is_a_success(value: bytes) -> None:
    assert later({"kind": "returned", "shape": "other"}, value) == [Succeeded(value=value)] * 2


@pytest.mark.parametrize("status", [200, 204, 302, 399, "200"])
def test_a_status_below_400_is_a_success(status: Any) -> None:
    assert later(returned(status), b'{"statusCode":200}') == [Succeeded(value=b'{"statusCode":200}')] * 2


@pytest.mark.parametrize(
    ("status", "retry"),
    [(400, False), (404, False), (499, False), (500, True), (503, True), ("503", True), (599, True)],
)
def test_a_status_from_400_on_is_a_failure_and_from_500_on_worth_a_retry(status: Any, retry: bool) -> None:
    message = f"The function returned the status {status}: no money"
    expected = Failed(error=Error(type="ReturnedStatus", message=message), retry=retry)
    assert later(returned(status), b'{"statusCode":503,"body":"no money"}') == [expected] * 2


@pytest.mark.parametrize(
    ("value", "tail"),
    [
        (b"", "."),
        (b'{"statusCode":500}', "."),
        (b'{"body":""}', "."),
        (b'{"body":5}', "."),
        (b'{"body":"' + b"a" * 1000 + b'"}', ": " + "a" * 499 + "…"),
        (b'{"body":"cut of', ': {"body":"cut of'),
        (b"\xff", ": \ufffd"),
        (b'{"body":"' + b"a" * RESULT_BYTES_MAX + b'"}', ': {"body":"' + "a" * 490 + "…"),
    ],
)
def test_the_message_has_the_start_of_the_body(value: bytes, tail: str) -> None:
    for outcome in later(returned(500), value):
        assert isinstance(outcome, Failed)
        assert outcome.error.message == "The function returned the status 500" + tail


@pytest.mark.parametrize("raw", [None, 0, "ok", 199, 600, True, [500]])
def test_a_status_that_is_none_is_a_failure_for_good(raw: Any) -> None:
    for outcome in later(returned(raw)):
        assert "statusCode" in invalid(outcome)


@pytest.mark.parametrize("raw", [500, 404, "nonsense", None])
def test_the_status_can_be_ignored(raw: Any) -> None:
    assert later(returned(raw), b"{}", "ignore") == [Succeeded(value=b"{}")] * 2


def test_what_is_no_json_is_a_failure_for_good() -> None:
    for outcome in later({"kind": "returned", "shape": "other", "body": "invalid"}):
        assert "JSON" in invalid(outcome)


def test_the_first_64_kib_of_a_value_are_kept() -> None:
    value = b'"' + b"a" * RESULT_BYTES_MAX + b'"'
    assert (
        later({"kind": "returned", "shape": "other"}, value)
        == [Succeeded(value=value[:RESULT_BYTES_MAX])] * 2
    )


# Raised


def raised(error: Any = None, **more: Any) -> Failed:
    outcome = answer({"kind": "raised", "error": error, "retry": True, "retry_after_s": None, **more})
    assert isinstance(outcome, Failed)
    return outcome


def test_an_exception_is_a_failure() -> None:
    error = Error(type="ValueError", message="no", trace=("Traceback", "  line 1"))
    assert raised(error.to_json()) == Failed(error=error)


@pytest.mark.parametrize("mode", Mode)
def test_it_says_itself_whether_to_retry(mode: Mode) -> None:
    header = {"kind": "raised", "error": {"type": "DoNotRetry", "message": "", "trace": []}, "retry": False}
    outcome = judge(header, b"", mode=mode, returned_status="fail")
    assert isinstance(outcome, Failed)
    assert not outcome.retry


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        (None, None),
        (0, 0.0),
        (5, 5.0),
        (2.5, 2.5),
        (1e300, RETRY_AFTER_S_MAX),
        (10**400, RETRY_AFTER_S_MAX),
        (float("inf"), RETRY_AFTER_S_MAX),
        (float("nan"), None),
        (-1, None),
        ("5", None),
        (True, None),
        ([], None),
    ],
)
def test_when_to_retry_is_a_number_of_seconds_within_reason(raw: Any, seconds: float | None) -> None:
    outcome = raised(retry_after_s=raw)
    assert outcome.retry_after_s == seconds
    assert raw is None or seconds is None or isinstance(outcome.retry_after_s, float), (
        "decide() matches floats"
    )


def test_an_exception_is_bounded() -> None:
    error = {
        "type": "T" * 10_000,
        "message": "m" * 100_000,
        "trace": [f"{n}" + "t" * 10_000 for n in range(200)],
    }
    kept = raised(error).error
    assert len(kept.type) == 256
    assert len(kept.message) == 8192
    assert len(kept.trace) == 50
    assert kept.trace[-1].startswith("199"), "the end of a traceback says most"
    assert max(map(len, kept.trace)) == 1024


@pytest.mark.parametrize("error", [None, 5, [], {}, {"type": 5, "message": [], "trace": "x"}])
def test_an_error_without_its_parts_is_an_error_all_the_same(error: Any) -> None:
    assert raised(error).error == Error(type="Error", message="")


def test_half_characters_are_replaced_so_that_the_error_can_be_sent() -> None:
    error = raised({"type": "E\ud800", "message": "\udcff", "trace": ["\ud800", 5]}).error
    assert error == Error(type="E\ufffd", message="\ufffd", trace=("\ufffd", ""))


# A worker is not trusted

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(["200", 200, 500, "content-type", "text", "\ud800", "a\r\nb"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
GARBAGE = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(["returned", "raised"]) | JSON,
        "shape": st.sampled_from(["object", "nothing", "other"]) | JSON,
        "statusCode": st.sampled_from([200, "500", 404]) | JSON,
        "headers": st.dictionaries(st.sampled_from(["x-a", "X-A", "bad name", "te"]), JSON) | JSON,
        "multiValueHeaders": st.dictionaries(st.sampled_from(["x-a", "x-b"]), st.lists(JSON)) | JSON,
        "body": st.sampled_from(["text", "base64", "none", "invalid"]) | JSON,
        "error": st.fixed_dictionaries({"type": JSON, "message": JSON, "trace": st.lists(JSON) | JSON})
        | JSON,
        "retry": JSON,
        "retry_after_s": JSON,
    },
)


@given(
    header=GARBAGE,
    body=st.binary(max_size=64),
    mode=st.sampled_from(Mode),
    returned_status=st.sampled_from(["fail", "ignore"]),
)
def test_garbage_becomes_an_outcome_that_can_be_sent(
    header: Header, body: bytes, mode: Mode, returned_status: Literal["fail", "ignore"]
) -> None:
    outcome = judge(header, body, mode=mode, returned_status=returned_status)
    assert isinstance(outcome, Succeeded | Failed)
    reply = decode_reply(encode_reply(outcome))
    if isinstance(outcome, Succeeded):
        assert isinstance(reply, Succeeded)
        assert reply.response == outcome.response
        assert 200 <= outcome.response.status <= 599
        assert all("\n" not in value and "\r" not in value for _, value in outcome.response.headers)
    else:
        assert isinstance(reply, Failed)
        assert reply.error == outcome.error


@pytest.mark.parametrize("kind", [None, "", "finished", 5, [], {}])
def test_a_frame_of_an_unknown_kind_is_a_failure(kind: Any) -> None:
    assert "kind" in invalid(answer({"kind": kind}))


def test_an_empty_frame_is_a_failure() -> None:
    assert invalid(answer({}))

"""What the two headers that put an invocation off may say."""

from datetime import UTC, datetime

import pytest

from gateway.delay import AHEAD_S_MAX, due_at_of
from gateway.problems import Code, Problem
from gateway.request import Head, read_head
from quarterhour.function import Manifest
from quarterhour.retry import RetryPolicy

NOW = datetime(2030, 1, 31, 8, 0, 0, tzinfo=UTC).timestamp()
DELAY, AT = b"x-quarterhour-delay", b"x-quarterhour-at"
FUNCTION = Manifest(name="f", runtime="python", background=True, timeout_s=1, retry=RetryPolicy())
DAY_S = 24 * 3600


def head(*headers: tuple[bytes, bytes]) -> Head:
    return read_head({"raw_path": b"/", "query_string": b"", "headers": list(headers)})


def due_at(*headers: tuple[bytes, bytes]) -> float | Problem | None:
    return due_at_of(head(*headers), FUNCTION, now=NOW)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"90", 90),
        (b"0", 0),
        (b"1.5", 1.5),
        (b" 90 ", 90),
        (b"PT90S", 90),
        (b"pt90s", 90),
        (b"PT1.5S", 1.5),
        (b"P1D", DAY_S),
        (b"P1W", 7 * DAY_S),
        (b"PT1H30M", 5400),
        (b"P30D", AHEAD_S_MAX),
        (b"2592000", AHEAD_S_MAX),
        (b"P1M", 28 * DAY_S),  # to the end of February
    ],
)
def test_a_delay(text: bytes, seconds: float) -> None:
    assert due_at((DELAY, text)) == NOW + seconds


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (b"2030-01-31T08:01:30Z", NOW + 90),
        (b"2030-01-31t08:01:30z", NOW + 90),
        (b"2030-01-31 08:01:30.5Z", NOW + 90.5),
        (b"2030-01-31T08:01:30.123456789Z", NOW + 90.123456),
        (b"2030-01-31T09:01:30+01:00", NOW + 90),
        (b"2030-03-02T08:00:00Z", NOW + AHEAD_S_MAX),
        (b"2001-01-01T00:00:00Z", datetime(2001, 1, 1, tzinfo=UTC).timestamp()),
    ],
)
def test_a_moment(text: bytes, moment: float) -> None:
    assert due_at((AT, text)) == pytest.approx(moment, abs=1e-6)


def test_without_the_headers_nothing_is_put_off() -> None:
    assert due_at((b"content-type", b"text/plain")) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"-1",
        b"-PT5S",
        b"soon",
        b"1e3",
        b"0x10",
        b"inf",
        b"nan",
        b"1,5",
        b"+5",
        b"P",
        b"PT",
        b"P1DT",
        b"90 s",
        b"P31D",
        b"2592000.1",
        b"P1Y",
        b"P99999999999D",
        b"P9999Y",
        b"P1M1Y",
        b"\xb2",
        b"9" * 65,
        b"2030-01-31T08:01:30Z",
    ],
)
def test_what_is_no_delay(text: bytes) -> None:
    problem = due_at((DELAY, text))
    assert isinstance(problem, Problem)
    assert problem.code is Code.BAD_DELAY
    assert problem.detail.startswith("X-Quarterhour-Delay must be")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"90",
        b"2030-01-31",
        b"2030-01-31T08:01:30",
        b"2030-02-30T08:00:00Z",
        b"2030-01-31T25:00:00Z",
        b"20300131T080130Z",
        b"2030-W05-4T08:00:00Z",
        b"2030-03-02T08:00:01Z",
        b"9999-12-31T23:59:59Z",
        b"Thu, 31 Jan 2030 08:01:30 GMT",
    ],
)
def test_what_is_no_moment(text: bytes) -> None:
    problem = due_at((AT, text))
    assert isinstance(problem, Problem), problem
    assert problem.detail.startswith("X-Quarterhour-At must be")


@pytest.mark.parametrize(
    "headers",
    [
        ((DELAY, b"5"), (AT, b"2030-01-31T08:01:30Z")),
        ((DELAY, b"5"), (DELAY, b"5")),
        ((AT, b"2030-01-31T08:01:30Z"), (AT, b"2030-01-31T08:01:30Z")),
    ],
)
def test_just_one_of_them_is_allowed(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    problem = due_at(*headers)
    assert isinstance(problem, Problem)
    assert "just one" in problem.detail


def test_a_synchronous_function_cannot_be_put_off() -> None:
    synchronous = Manifest(name="f", runtime="python", background=False, timeout_s=1, retry=RetryPolicy())
    problem = due_at_of(head((DELAY, b"5")), synchronous, now=NOW)
    assert isinstance(problem, Problem)
    assert problem.detail == "f is a synchronous function: it runs while its caller waits."

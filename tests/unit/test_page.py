"""The page of an invocation: what it says in each state, and that nothing on it is more than text."""

import base64
import hashlib
import re
from datetime import datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from gateway.api.page import HEADERS, REFRESH_S, duration, invocation_page, problem_page
from gateway.problems import Code, Problem
from quarterhour.lifecycle import FINAL, State
from quarterhour.retry import BuryReason

ID = "01930000-0000-7000-8000-000000000001"
NOW = datetime.fromisoformat("2026-11-02T14:04:09.300Z").timestamp()
ERROR = {"type": "ValueError", "message": "no such address", "trace": ["line 1", "  line 2"]}
EVIL = """</script></pre><script>alert(1)</script><img src=x onerror="alert('2')">&amp;{{ 7 * 7 }}"""
VOID = {"meta", "br", "img"}


class Reader(HTMLParser):
    """What a browser makes of a page: elements, their attributes, texts. Every element has to be closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    @property
    def text(self) -> str:
        return " ".join(" ".join(text for tag, text in self.texts if tag != "style").split())

    def of(self, tag: str) -> list[str]:
        """The texts directly in elements of this tag."""
        return [text for inside, text in self.texts if inside == tag]

    @property
    def refresh(self) -> str | None:
        found = [attrs["content"] for _, attrs in self.elements if attrs.get("http-equiv") == "refresh"]
        return found[0] if found else None


def shape(state: str, **values: Any) -> dict[str, Any]:
    return {
        "id": ID,
        "function": "report-background",
        "mode": "background",
        "state": state,
        "attempt": 1,
        "accepted_at": "2026-11-02T14:03:01.120Z",
        "due_at": "2026-11-02T14:03:09.300Z",
        "started_at": None,
        "finished_at": None,
        "next_attempt_at": None,
        "reason": None,
        "outcome": None,
        "error": None,
        "result": None,
        "runner": None,
        "attempts": [],
        **values,
    }


def attempt(number: int, outcome: str = "failed", **values: Any) -> dict[str, Any]:
    return {
        "attempt": number,
        "started_at": "2026-11-02T14:04:02.000Z",
        "finished_at": "2026-11-02T14:04:05.250Z",
        "outcome": outcome,
        "error": ERROR if outcome == "failed" else None,
        "logs": "a line\n",
        "runner": "runner-1",
        **values,
    }


TIMES = {"started_at": "2026-11-02T14:04:02.000Z", "finished_at": "2026-11-02T14:04:05.250Z"}
FAILED = {**TIMES, "outcome": "failed", "error": ERROR, "attempts": [attempt(1)]}
STATES: dict[str, tuple[dict[str, Any], str]] = {
    "delayed": ({"due_at": "2026-11-02T14:05:14.300Z"}, "It is due in 1 min 5 s."),
    "waiting": ({}, "Attempt 1 waits for a runner, for 1 min 0 s so far."),
    "running": (
        {"attempt": 2, "started_at": TIMES["started_at"], "runner": "runner-2", "attempts": [attempt(1)]},
        "Attempt 2 has been running for 7.3 s.",
    ),
    "retrying": (
        {**FAILED, "next_attempt_at": "2026-11-02T14:05:05.250Z", "finished_at": None},
        "Attempt 1 did not succeed; the next one starts in 56.0 s.",
    ),
    "succeeded": (
        {**TIMES, "result": {"sent": [1]}, "attempts": [attempt(1, "succeeded")]},
        "Attempt 1 succeeded in 3.2 s.",
    ),
    "dead": ({**FAILED, "reason": "failed"}, "Attempt 1 failed and is not tried again."),
    "cancelled": ({"finished_at": TIMES["finished_at"]}, "Somebody cancelled it."),
}


def read(state: str, *, refresh: bool = True, **values: Any) -> Reader:
    return Reader(invocation_page(shape(state, **(STATES[state][0] | values)), now=NOW, refresh=refresh))


@pytest.mark.parametrize("state", State)
def test_each_state_is_said_in_words(state: str) -> None:
    page = read(state)
    assert page.of("title") == [f"{state} · report-background"]
    assert page.of("h1") == ["report-background"]
    assert state.capitalize() in page.text
    assert STATES[state][1] in page.text
    assert ID in page.text


@pytest.mark.parametrize("state", State)
def test_it_refreshes_itself_until_the_end(state: str) -> None:
    assert read(state).refresh == (None if state in FINAL else str(REFRESH_S))
    assert read(state, refresh=False).refresh is None


def test_whoever_reads_can_stop_it_and_go_on() -> None:
    assert ("a", {"href": "?refresh=off"}) in read("waiting").elements
    assert ("a", {"href": "?"}) in read("waiting", refresh=False).elements
    assert "refresh=off" not in str(read("dead").elements)


@pytest.mark.parametrize("reason", BuryReason)
def test_each_reason_of_a_dead_letter_is_said(reason: str) -> None:
    page = read("dead", reason=reason)
    assert "is not tried again. What" in page.text or "waited for too long" in page.text


def test_a_dead_letter_that_never_ran() -> None:
    page = Reader(invocation_page(shape("dead", reason="expired"), now=NOW, refresh=True))
    assert "table" not in page.tags
    assert "Attempt 1 had waited for too long before it could start." in page.text


def test_the_error_with_its_trace() -> None:
    page = read("dead")
    assert "Error of attempt 1 ValueError no such address Where it happened line 1 line 2" in page.text
    assert "line 1\n  line 2" in page.of("pre")


def test_the_attempts_are_a_table_with_the_latest_first() -> None:
    crashed = {"type": "Crashed", "message": "was killed", "trace": []}
    page = read("running", attempt=3, attempts=[attempt(1), attempt(2, "timed_out", error=crashed, logs="")])
    assert page.of("caption") == ["The latest first; times are UTC"]
    assert page.of("th") == ["No.", "Outcome", "Started", "Took", "Runner", "3", "2", "1"]
    cells = [text for text in page.of("td") if text.strip()]
    assert cells == [
        "running",
        "…",
        "runner-2",
        "timed out",
        "3.2 s",
        "runner-1",
        "failed",
        "3.2 s",
        "runner-1",
    ]
    assert page.of("strong") == ["Crashed", "ValueError"]
    assert "It printed nothing" in page.text
    assert page.of("summary") == ["Where it happened", "What it printed"]


def test_only_the_log_of_the_latest_attempt_is_open() -> None:
    page = read("succeeded", attempts=[attempt(n, "succeeded") for n in range(1, 4)])
    assert [attrs for tag, attrs in page.elements if tag == "details"] == [{"open": None}, {}, {}]


def test_times_are_times() -> None:
    page = read("succeeded")
    assert ("time", {"datetime": "2026-11-02T14:03:01.120Z"}) in page.elements
    assert page.of("time") == [
        "2026-11-02 14:03:01",
        *["2026-11-02 14:04:02", "2026-11-02 14:04:05"],
        "2026-11-02 14:04:02",
    ]


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        ({"sent": [1], "to": "Zoë"}, '{\n  "sent": [\n    1\n  ],\n  "to": "Zoë"\n}'),
        ("plain words", "plain words"),
        (0, "0"),
        ([], "[]"),
        (False, "false"),
    ],
)
def test_the_result_is_shown_as_json(result: Any, shown: str) -> None:
    assert shown in read("succeeded", result=result).of("pre")


def test_no_result_and_a_part_of_one() -> None:
    assert "It returned nothing." in read("succeeded", result=None).text
    assert "Only the beginning" in read("succeeded", result='{"a', result_truncated=True).text
    assert "Result" not in read("running").text


def test_what_a_function_says_stays_text() -> None:
    error = {"type": EVIL, "message": EVIL, "trace": [EVIL, EVIL]}
    evil = attempt(1, error=error, logs=EVIL, runner=EVIL)
    for state in ("dead", "succeeded"):
        page = read(state, error=error, attempts=[evil], result={EVIL: EVIL})
        assert not page.tags & {"script", "img"}
        assert EVIL in page.of("pre")
        assert page.text.count("alert(1)") == page.text.count("{{ 7 * 7 }}") >= 6


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\0b", "a\u2400b"),
        ("\x1b[31mred\x1b[0m", "\u241b[31mred\u241b[0m"),
        ("a\x7f\x9fb", "a��b"),
        ("half \ud83d of it", "half � of it"),
        ("tab\there\nline", "tab\there\nline"),
        ("\u202ezyx 𝔘ñï 🦊 \u0301", "\u202ezyx 𝔘ñï 🦊 \u0301"),
    ],
)
def test_characters_that_no_page_can_have_are_shown_by_a_sign(text: str, shown: str) -> None:
    html = invocation_page(
        shape("dead", **(STATES["dead"][0] | {"attempts": [attempt(1, logs=text)]})), now=NOW, refresh=True
    )
    assert shown in Reader(html).of("pre")
    html.encode()


def test_much_of_everything() -> None:
    log = "<&>" * 22_000
    page = read("dead", attempt=100, attempts=[attempt(n, logs=log) for n in range(1, 101)])
    assert page.of("pre").count(log) == 100
    assert page.of("th")[5:] == [str(n) for n in range(100, 0, -1)]


def test_the_policy_allows_the_styles_of_the_page_and_nothing_else() -> None:
    html = invocation_page(shape("waiting"), now=NOW, refresh=True)
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = HEADERS["Content-Security-Policy"].split("; ")
    assert policy[:2] == ["default-src 'none'", f"style-src 'sha256-{hashed}'"]
    assert not re.search(r"\sstyle=|\son\w+=|<script|<link|url\(", html)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 ms"),
        (0.1204, "120 ms"),
        (1, "1.0 s"),
        (59.99, "59.9 s"),
        (60, "1 min 0 s"),
        (3599.9, "1 h 0 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_problem_says_what_is_wrong() -> None:
    page = Reader(problem_page(Problem(code=Code.UNKNOWN_INVOCATION, detail=f"No {EVIL}")))
    assert page.of("h1") == ["There is no such invocation"]
    assert f"No {EVIL}" in page.of("p")
    assert page.refresh is None


def test_a_problem_that_may_be_over_soon_tries_again() -> None:
    page = Reader(problem_page(Problem(code=Code.BROKER_UNAVAILABLE, detail="It is away.")))
    assert page.refresh == "2"
    assert "503 broker_unavailable" in page.text

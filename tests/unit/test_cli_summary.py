import shlex
from pathlib import Path
from typing import Any

import pytest

from quarterhour.cli.summary import address, curl, summary

BASE = "http://127.0.0.1:8888"


def function(**more: Any) -> dict[str, Any]:
    facts = {
        "name": "hello",
        "mode": "synchronous",
        "paths": ["/.netlify/functions/hello"],
        "methods": [],
        "error": None,
    }
    return {**facts, **more}


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("localhost", "http://localhost:80"),
    ],
)
def test_the_address_is_one_that_this_machine_can_open(host: str, url: str) -> None:
    assert address(host, 80, tls=False) == url
    assert address(host, 80, tls=True) == url.replace("http", "https")


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ([], ["-i", "-H", "content-type: application/json", "-d", "{}"]),
        (["GET", "POST"], ["-i", "-H", "content-type: application/json", "-d", "{}"]),
        (["GET"], ["-i"]),
        (["HEAD"], ["-I"]),
        (["DELETE"], ["-i", "-X", "DELETE"]),
    ],
)
def test_the_curl_fits_the_function(method: list[str], arguments: list[str]) -> None:
    line = curl(function(methods=method), BASE)
    assert line is not None
    assert shlex.split(line) == ["curl", *arguments, f"{BASE}/.netlify/functions/hello"]


@pytest.mark.parametrize(
    ("paths", "path"),
    [
        (["/users/:id", "/me"], "/me"),
        (["/users/:id"], "/users/1"),
        (["/files/*"], "/files/1"),
        (["/a/:number(\\d+){/:rest}?"], "/a/1"),
        (["/caf\u00e9"], "/caf%C3%A9"),
    ],
)
def test_the_curl_of_a_path_of_its_own_is_one_that_reaches_it(paths: list[str], path: str) -> None:
    shown = function(paths=paths, methods=["GET"])
    assert curl(shown, BASE) == f"curl -i {BASE}{path}"
    text = summary([shown], base=BASE, folder=Path("functions"))
    assert [one for one in paths if one not in text and one != "/caf\u00e9"] == [], (
        "the pattern is shown as it is"
    )


def test_a_pattern_without_a_simple_example_has_no_curl() -> None:
    shown = function(paths=["/(en|de)"])
    assert curl(shown, BASE) is None
    assert summary([shown], base=BASE, folder=Path("functions")).splitlines()[2:] == [
        "  hello  (synchronous, /(en|de))",
        "    call it at a path that matches /(en|de)",
    ]


def test_the_summary_shows_each_function_with_a_curl_or_its_error() -> None:
    text = summary(
        [function(), function(name="bad", mode="background", schedule="@daily", error="SyntaxError:\nno")],
        base=BASE,
        folder=Path("functions"),
    )
    assert text.splitlines() == [
        "2 functions in functions/:",
        "",
        "  hello  (synchronous)",
        f"    {curl(function(), BASE)}",
        "  bad  (background, @daily)",
        "    cannot run: SyntaxError: no",
    ]


def test_the_summary_of_an_empty_folder_says_how_to_begin() -> None:
    text = summary([], base=BASE, folder=Path("functions"))
    assert "functions/hello.py" in text
    assert "def handler(event, context):" in text
    assert f"curl -i {BASE}/.netlify/functions/hello" in text


def test_a_long_error_is_cut() -> None:
    text = summary([function(error="x" * 10_000)], base=BASE, folder=Path("functions"))
    assert len(text) < 1000

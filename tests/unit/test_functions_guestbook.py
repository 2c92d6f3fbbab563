"""The example functions `guestbook`, an application, and `export-guestbook`, which streams its entries."""

import asyncio
import csv
import itertools
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.functions import call, load, load_module

JSON = {"content-type": "application/json"}
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*"}
HOSTILE = "<script>alert('{name}')</script>"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The guestbook's folder, in a working directory of its own."""
    monkeypatch.delenv("GUESTBOOK_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".quarterhour" / "guestbook"


def ask(method: str = "GET", path: str = "/guestbook", **more: Any) -> httpx.Response:
    async def answer() -> httpx.Response:
        transport = httpx.ASGITransport(app=load_module("guestbook").app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8888") as client:
            return await client.request(method, path, **more)

    return asyncio.run(answer())


def add(name: str, text: str) -> None:
    load_module("guestbook")  # the module path is a worker's now
    with import_module("toolbox.guestbook").open_guestbook() as guestbook:
        guestbook.add(name, text)


def export(**query: str) -> dict[str, Any]:
    answer: dict[str, Any] = call(load("export-guestbook"), queryStringParameters=query)
    return answer


def rows_of(answer: dict[str, Any]) -> list[dict[str, str]]:
    text = "".join(answer["body"])
    return list(csv.DictReader(text.splitlines(keepends=True)))


# The guestbook


def test_an_entry_is_written_and_read(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    written = ask("POST", json={"name": " Zoë ", "text": "I was here."})
    assert written.status_code == 201
    entry = written.json()
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry.pop("written_at"))
    assert entry == {"id": 1, "name": "Zoë", "text": "I was here."}
    assert ask().json() == {"entries": [written.json()]}
    assert capsys.readouterr().out == "Zoë has written entry 1\n"
    assert [file.name for file in folder.iterdir()] == ["entries.db"]


@pytest.mark.parametrize("body", [b"", b"{}"])
def test_a_sample(body: bytes) -> None:
    assert ask("POST", content=body).json()["name"] == "Ada"


def test_a_browser_gets_a_page_with_a_form() -> None:
    written = ask("POST", data={"name": HOSTILE, "text": "a & b"}, headers=BROWSER)
    assert (written.status_code, written.headers["location"]) == (303, "/guestbook")
    page = ask(headers=BROWSER)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "&lt;script&gt;alert(&#x27;{name}&#x27;)&lt;/script&gt;" in page.text
    assert "a &amp; b" in page.text
    assert "<script>" not in page.text


def test_the_latest_entries_are_shown_the_newest_first() -> None:
    for number in range(53):
        add("Ada", str(number))
    entries = ask().json()["entries"]
    assert [entry["text"] for entry in entries] == [str(number) for number in range(52, 2, -1)]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"no json", "The body must be JSON or a form: "),
        (b"[" * 100_000, "The body must be JSON or a form: "),
        (b"\xff\xfe\xfd", "The body must be JSON or a form: "),
        (b"[1]", "must be a JSON object"),
        (b'{"name": "Ada"}', "'text' must be a text of 1 to 1000 characters."),
        (b'{"name": " ", "text": "x"}', "'name' must be a text of 1 to 100 characters."),
        (b'{"name": 5, "text": "x"}', "'name' must be"),
        (b'{"name": "Ada", "text": "%s"}' % (b"x" * 1001), "'text' must be"),
    ],
)
def test_a_bad_request(folder: Path, body: bytes, sentence: str) -> None:
    answer = ask("POST", content=body, headers=JSON)
    assert answer.status_code == 422
    assert sentence in answer.json()["error"]
    assert not folder.exists()


def test_what_can_be_written_at_most() -> None:
    assert ask("POST", json={"name": "x" * 100, "text": "ü" * 1000}).status_code == 201
    half = ask("POST", content=rb'{"name": "Ada", "text": "half \ud83d"}', headers=JSON)
    assert half.json()["text"] == "half ?"


def test_other_paths_and_methods() -> None:
    assert ask(path="/guestbook/more").status_code == 404
    assert ask("DELETE").status_code == 405


def test_many_write_at_once() -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: add("Ada", str(number)), range(40)))
    assert sorted(int(row["text"]) for row in rows_of(export())) == list(range(40))


# The export


def test_every_entry_is_exported(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["plain", 'a "quoted", text', "two\r\nlines", "=1+1", "@x", "-", "+1", "Zoë"]
    for text in texts:
        add("Ada", text)
    answer = export()
    assert (answer["statusCode"], answer["headers"]["content-type"]) == (200, "text/csv; charset=utf-8")
    rows = rows_of(answer)
    assert list(rows[0]) == ["id", "written_at", "name", "text"]
    assert [row["id"] for row in rows] == [str(number) for number in range(1, 9)]
    shown = [f"'{text}" if text[0] in "=@-+" else text for text in texts]
    assert [row["text"] for row in rows] == shown
    assert capsys.readouterr().out == "8 rows\n"


def test_an_empty_guestbook_has_its_headings() -> None:
    assert "".join(export()["body"]) == "id,written_at,name,text\r\n"


def test_more_entries_than_are_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        add("Ada", str(number))
    monkeypatch.setattr("toolbox.guestbook.READ_MAX", 3)
    assert [row["text"] for row in rows_of(export())] == [str(number) for number in range(7)]


def test_somebody_can_write_while_the_export_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(20):
        add("Ada", "x" * 1000)
    monkeypatch.setattr("toolbox.guestbook.BUSY_S", 0)  # there is such a module once a function is loaded
    body: Iterator[str] = export()["body"]
    first = next(body)
    add("Bob", "This is too late for a place in it, or not.")
    rows = rows_of({"body": itertools.chain([first], body)})
    assert [row["name"] for row in rows[:20]] == ["Ada"] * 20


def test_made_up_rows() -> None:
    answer = export(rows="5000")
    pieces = list(answer["body"])
    assert max(map(len, pieces)) < 10_000
    rows = rows_of({"body": pieces})
    assert [row["id"] for row in rows] == [str(number) for number in range(1, 5001)]
    assert "".join(export(rows="0")["body"]) == "id,written_at,name,text\r\n"
    assert export(rows="200000")["statusCode"] == 200


@pytest.mark.parametrize("rows", ["", "x", "-1", "1.5", "200001", "9" * 5000, "²", "٣"])
def test_a_bad_number_of_rows(rows: str) -> None:
    answer = export(rows=rows)
    assert (answer["statusCode"], answer["body"]) == (400, "'rows' must be a whole number up to 200000.")

"""`generate-report-background`: from sources to a PDF, which is opened again and read."""

import asyncio
import json
import threading
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pypdf
import pytest

from quarterhour import DoNotRetry, RetryAfter
from tests.nats_server import free_port
from tests.unit.functions import INVOCATION, call, load
from tests.web_server import Page, WebServer

CUPS = [{"day": "Mon", "cups": 3}, {"day": "Tue", "cups": 4}]
JSON = "application/json"


@pytest.fixture(autouse=True)
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for reports, in a working directory of its own."""
    monkeypatch.delenv("REPORTS_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".quarterhour" / "reports"


def report(*sources: dict[str, Any], **fields: Any) -> Any:
    """What the function returns for a request."""
    return run(json.dumps({"sources": sources, **fields}))


def run(body: str | bytes | None) -> Any:
    return asyncio.run(call(load("generate-report-background"), body))


def read(content: bytes) -> tuple[pypdf.PdfReader, str]:
    pdf = pypdf.PdfReader(BytesIO(content))
    return pdf, "\n".join(page.extract_text() for page in pdf.pages)


def text_of(reports: Path) -> str:
    return read((reports / f"{INVOCATION}.pdf").read_bytes())[1]


def tables() -> Any:
    load("generate-report-background")  # the module path is a worker's now
    return import_module("toolbox.tables")


# The report


@pytest.mark.parametrize("body", [None, "", "{}", b"{}"])
def test_the_sample(reports: Path, capsys: pytest.CaptureFixture[str], body: str | bytes | None) -> None:
    file = f".quarterhour/reports/{INVOCATION}.pdf"
    assert run(body) == {"file": file, "pages": 1, "rows": 12}
    assert capsys.readouterr().out.splitlines() == [
        "Sales: 6 rows",
        "Costs: 4 rows",
        "Staff: 2 rows",
        f"{file}: 1 pages, 12 rows",
    ]
    pdf, text = read((reports / f"{INVOCATION}.pdf").read_bytes())
    assert pdf.metadata
    assert pdf.metadata.title == "Three days at the Corner Café"
    for line in (
        "Three days at the Corner Café",
        "Summary",
        "Sales 6 cups 323, euros 938.5",
        "Costs 4 euros 230.50",
        "Staff 2 hours 39.5",
        "Wednesday Café crème 52 182.0",
        "Wednesday Repair of the grinder 64.90",
        "Page 1",
    ):
        assert line in text.splitlines()
    assert INVOCATION in text
    assert "?" not in text


def test_a_second_attempt_writes_the_same_file(reports: Path) -> None:
    report({"name": "First", "rows": CUPS})
    report({"name": "Second", "rows": CUPS})
    assert [path.name for path in reports.iterdir()] == [f"{INVOCATION}.pdf"]
    assert "Second" in text_of(reports)


def test_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPORTS_DIR", str(tmp_path / "a" / "b"))
    file = report({"name": "Cups", "rows": CUPS})["file"]
    assert file == str(tmp_path / "a" / "b" / f"{INVOCATION}.pdf")
    assert Path(file).is_file()


def test_a_long_table_has_its_headings_and_a_number_on_each_page(reports: Path) -> None:
    rows = [{"day": f"day-{number}", "cups": number} for number in range(200)]
    result = report({"name": "Cups", "rows": rows}, title="Long")
    pdf, text = read((reports / f"{INVOCATION}.pdf").read_bytes())
    assert result["pages"] == len(pdf.pages) > 2
    for number, page in enumerate(pdf.pages, start=1):
        lines = page.extract_text().splitlines()
        assert f"Page {number}" in lines
        assert "day cups" in lines
    assert all(f"day-{number} {number}" in text.splitlines() for number in range(200))
    assert "Cups 200 cups 19,900" in text


def test_what_the_font_lacks_becomes_a_question_mark_and_it_says_so(reports: Path) -> None:
    report({"name": "Łódź", "rows": [{"a": "€ “x” ü", "b": "日本\a\u00ad{nb}"}]}, title="a\u0301 1\ud83d")
    text = text_of(reports)
    assert "?ód?" in text.splitlines()
    assert "á 1" in text.splitlines()[0]
    assert "€ “x” ü ??  {nb}" in text.splitlines()
    assert "A ? may stand for a character" in text


texts = st.text(st.characters(exclude_categories=()), max_size=150)
cells = st.one_of(texts, st.none(), st.booleans(), st.integers(), st.floats(), st.lists(st.integers()))
rows = st.lists(st.dictionaries(texts, cells, max_size=12), max_size=5)


@hypothesis.settings(
    max_examples=40, suppress_health_check=list(hypothesis.HealthCheck), derandomize=False, database=None
)
@hypothesis.given(title=texts, rows=rows)
def test_no_text_is_too_odd(title: str, rows: list[dict[str, Any]]) -> None:
    result = report({"name": "Odd", "rows": rows}, title=f"x{title}")
    assert result["rows"] == len(rows)
    read(Path(result["file"]).read_bytes())


@pytest.mark.parametrize("letter", ["W", "W ", "\n", "\u00ad", "\t"])
def test_as_much_as_fits_into_a_row(reports: Path, letter: str) -> None:
    names = [f"{number}{letter * 200}" for number in range(12)]
    sources = [{"name": "W" * 60, "rows": [dict.fromkeys(names, "9" * 29), dict.fromkeys(names, 0)]}]
    sources += [{"name": "W" * 60, "rows": [dict.fromkeys(names, letter * 1000)]}]
    report(*sources, title="W" * 200)
    assert "There was no room for 2 more columns." in text_of(reports)


@pytest.mark.parametrize("rows", [[], [{}], [{"a": None}], [{"": ""}]])
def test_an_empty_source(reports: Path, rows: list[dict[str, Any]]) -> None:
    assert report({"name": "Nothing", "rows": rows})["rows"] == len(rows)
    assert f"Nothing {len(rows)}" in text_of(reports)


# Totals


def test_numbers_are_added_up_as_they_are_written() -> None:
    rows = [
        {
            "json": 0.1,
            "csv": "0.10",
            "gaps": None,
            "big": 10**20,
            "yes": True,
            "word": 1,
            "odd": float("nan"),
            "huge": "9e999999",
        },
        {
            "json": 0.2,
            "csv": " 0.20",
            "gaps": 2,
            "big": 1,
            "yes": True,
            "word": "x",
            "odd": 1,
            "huge": "9e999999",
        },
    ]
    table = tables().make_table("Numbers", rows)
    shown = {column: f"{number:,f}" for column, number in table.totals.items()}
    assert shown == {"json": "0.3", "csv": "0.30", "gaps": "2", "big": "100,000,000,000,000,000,001"}


def test_only_the_columns_that_are_wanted() -> None:
    rows = [{"year": 2025, "cups": 3}, {"year": 2026, "cups": 4}]
    assert list(tables().make_table("Cups", rows, ["cups"]).totals) == ["cups"]
    assert tables().make_table("Cups", rows, []).totals == {}
    assert tables().make_table("Cups", [], ["cups"]).totals == {}  # a day without sales


@pytest.mark.parametrize("column", ["nowhere", "day"])
def test_a_column_that_cannot_be_added_up(column: str) -> None:
    with pytest.raises(DoNotRetry, match=f"Cups has no numbers to add up in a column '{column}'"):
        report({"name": "Cups", "rows": CUPS, "total": [column]})


# Sources on the web


def test_sources_are_fetched_at_the_same_time(reports: Path) -> None:
    together = threading.Barrier(3)  # none is answered before all three are asked for
    pages = {
        "/a.json": Page(body="\ufeff" + json.dumps(CUPS), type=JSON, together=together),
        "/b.csv": Page(
            body="\ufeffday,cups\r\nWed,5\r\n", type="application/octet-stream", together=together
        ),
        "/c": Page(body=b"name,cups\nJos\xe9,6\n", type="text/csv", together=together),
    }
    with WebServer(pages) as web:
        sources = [{"name": path.strip("/"), "url": web.url + path} for path in pages]
        assert report(*sources)["rows"] == 4
    lines = text_of(reports).splitlines()
    assert [line for line in lines if "cups " in line] == [
        "a.json 2 cups 7",
        "b.csv 1 cups 5",
        "c 1 cups 6",
    ]
    assert "José 6" in lines


def test_an_object_with_rows_and_a_redirect(reports: Path) -> None:
    moved = Page(status=302, headers={"location": "/new?x=1"})
    with WebServer({"/old": moved, "/new?x=1": Page(body=json.dumps({"rows": CUPS}), type=JSON)}) as web:
        assert report({"name": "Cups", "url": f"{web.url}/old"})["rows"] == 2


def test_a_source_that_may_come_back_is_tried_again_by_the_retry(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with WebServer({"/a": Page(status=503), "/b": Page(status=500)}) as web:
        with pytest.raises(Exception, match=r"/a answered 503") as raised:
            report({"name": "A", "url": f"{web.url}/a"}, {"name": "B", "url": f"{web.url}/b"})
        assert type(raised.value).__name__ == "TryLater"
    assert "/b answered 500 Internal Server Error" in capsys.readouterr().out


@pytest.mark.parametrize(("after", "delay_s"), [("0", 0), ("7", 7), ("999999", 3600)])
def test_a_source_that_says_when(after: str, delay_s: int) -> None:
    with WebServer({"/": Page(status=429, headers={"retry-after": after})}) as web:
        with pytest.raises(RetryAfter, match="answered 429") as raised:
            report({"name": "A", "url": web.url})
        assert raised.value.delay_s == delay_s


@pytest.mark.parametrize("after", ["", "soon", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "²", "1" * 50])
def test_a_source_that_says_nonsense(after: str) -> None:
    header = {"retry-after": after.encode().decode("latin-1")}
    with WebServer({"/": Page(status=503, headers=header)}) as web:
        with pytest.raises(Exception, match="answered 503") as raised:
            report({"name": "A", "url": web.url})
        assert type(raised.value).__name__ == "TryLater"


def test_a_source_that_cannot_be_reached() -> None:
    with pytest.raises(Exception, match="cannot be reached") as raised:
        report({"name": "A", "url": f"http://user:secret@127.0.0.1:{free_port()}/"})
    assert type(raised.value).__name__ == "TryLater"
    assert "secret" not in str(raised.value)


def test_a_source_that_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    tables()
    monkeypatch.setattr("toolbox.web.TIMEOUT_S", 0.1)
    together = threading.Barrier(2)
    with WebServer({"/": Page(together=together)}) as web:
        with pytest.raises(Exception, match="took longer than") as raised:
            report({"name": "A", "url": web.url})
        together.abort()
    assert type(raised.value).__name__ == "TryLater"


ROUND = Page(status=302, headers={"location": "/"})
BAD_PAGES = [
    (Page(status=404), "answered 404 Not Found"),
    (Page(status=401), "answered 401"),
    (Page(status=304), "answered 304"),
    (Page(body="x" * 1_000_001), "is larger than 1000000 bytes"),
    (Page(body="<p>"), "A is no JSON"),
    (Page(body="["), "A is no JSON"),
    (Page(body="[" * 100_000), "A is no JSON"),
    (Page(body="9" * 5000), "A is no JSON"),
    (Page(body="5"), "A must be a list of objects"),
    (Page(body="{}"), "A must be a list of objects"),
    (Page(body="[1]"), "A must be a list of objects"),
    (Page(body=f'a\n"{"x" * 200_000}"', type="text/csv"), "A is no CSV"),
    (Page(body="a\n" + "1\n" * 5001, type="text/csv"), "A has 5001 rows; at most 5000"),
    (ROUND, "is behind more than 5 redirects"),
    (Page(status=302, headers={"location": "file:///etc/passwd"}), "is no address such as"),
]


@pytest.mark.parametrize(("page", "sentence"), BAD_PAGES)
def test_a_source_that_would_fail_again(page: Page, sentence: str) -> None:
    # The other one may be there later: that helps nothing.
    with WebServer({"/": page, "/b": Page(status=503)}) as web, pytest.raises(DoNotRetry, match=sentence):
        report({"name": "B", "url": f"{web.url}/b"}, {"name": "A", "url": f"{web.url}/"})


# Bad requests

GOOD = {"name": "A", "rows": CUPS}
BAD_REQUESTS = [
    ("no json", "must be JSON"),
    ("[" * 100_000, "must be JSON"),
    (b"\xff\xfe\xfd", "must be JSON"),
    ("[]", "must be a JSON object"),
    ("null", "must be a JSON object"),
    (json.dumps({"titel": "x", "sources": [GOOD]}), "'titel' is no field .* known are title, sources"),
    (json.dumps({"title": "x"}), "'sources' must be a list of 1 to 10"),
    (json.dumps({"sources": []}), "'sources' must be a list of 1 to 10"),
    (json.dumps({"sources": [GOOD] * 11}), "'sources' must be a list of 1 to 10"),
    (json.dumps({"sources": [GOOD], "title": " "}), "'title' must be"),
    (json.dumps({"sources": [GOOD], "title": "x" * 201}), "'title' must be"),
    (json.dumps({"sources": [GOOD], "title": 5}), "'title' must be"),
    (json.dumps({"sources": ["x"]}), "A source must be like"),
    (json.dumps({"sources": [{"name": "A"}]}), "A source must be like"),
    (json.dumps({"sources": [{**GOOD, "url": "x"}]}), "A source must be like"),
    (json.dumps({"sources": [{"rows": CUPS}]}), "'name' must be"),
    (json.dumps({"sources": [{**GOOD, "name": "x" * 61}]}), "'name' must be"),
    (json.dumps({"sources": [{**GOOD, "total": "cups"}]}), "'total' must be"),
    (json.dumps({"sources": [{**GOOD, "total": [5]}]}), "'total' must be"),
    (json.dumps({"sources": [{"name": "A", "rows": {"a": 1}}]}), "A must be a list of objects"),
    (json.dumps({"sources": [{"name": "A", "rows": [{}] * 2501}] * 2}), "5002 rows together"),
    (json.dumps({"sources": [{"name": "A", "rows": [{}] * 5001}]}), "A has 5001 rows"),
]
BAD_URLS = [
    *("", "x", "/x", "ftp://example.org/", "file:///etc/passwd", "http://", "http:///x", "https://x:99999/"),
    *("http://h:0/", "http://\0/", "http://xn--/", "http://\ud83d/", "http://x/\ud83d", "http://[bad/"),
    *(f"http://{'a' * 64}.org/", f"http://x/{'a' * 2000}", 5, None, ["http://x"]),
]


@pytest.mark.parametrize(("body", "sentence"), BAD_REQUESTS)
def test_a_bad_request_is_not_tried_again(reports: Path, body: str | bytes, sentence: str) -> None:
    with pytest.raises(DoNotRetry, match=sentence):
        run(body)
    assert not reports.exists()


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_bad_address_is_not_tried_again(url: Any) -> None:
    with pytest.raises(DoNotRetry, match="is no address such as"):
        report({"name": "A", "url": url})

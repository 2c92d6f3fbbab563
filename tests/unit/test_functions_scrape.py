"""`scrape-site-background`: which pages it reads, what it says of them, and what it leaves alone."""

import asyncio
import json
import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from quarterhour import DoNotRetry, RetryAfter
from tests.unit.functions import INVOCATION, call, load
from tests.web_server import Page, WebServer


@pytest.fixture(autouse=True)
def scrapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for what was found, in a working directory of its own."""
    monkeypatch.delenv("SCRAPES_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".quarterhour" / "scrapes"


def run(body: str | bytes | None) -> Any:
    return asyncio.run(call(load("scrape-site-background"), body))


def scrape(url: str, **fields: Any) -> dict[str, Any]:
    """The file that the function writes."""
    result = run(json.dumps({"url": url, "delay_s": 0, **fields}))
    found: dict[str, Any] = json.loads(Path(result["file"]).read_text())
    assert result["pages"] == len(found["pages"])
    assert result["skipped"] == len(found["skipped"])
    return found


def paths(found: dict[str, Any], web: WebServer) -> list[str]:
    """The paths of the pages that were read, in the order in which they were."""
    return [page["url"].removeprefix(web.url) for page in found["pages"]]


def links(*targets: str) -> Page:
    return Page(body="".join(f"<a href='{target}'>link</a>" for target in targets))


def read_html(html: str | bytes, *, charset: str | None = None) -> tuple[dict[str, Any], list[str]]:
    load("scrape-site-background")  # the module path is a worker's now
    web = import_module("toolbox.web")
    content = html.encode() if isinstance(html, str) else html
    page = web.Fetched(url=web.parse_url("http://h/a/b"), type="text/html", charset=charset, content=content)
    found, targets = import_module("toolbox.html").read_html(page)
    return found, [str(target) for target in targets]


# The walk


@pytest.mark.parametrize("body", [None, "", "{}", b"{}"])
def test_the_sample(scrapes: Path, capsys: pytest.CaptureFixture[str], body: str | bytes | None) -> None:
    file = f".quarterhour/scrapes/{INVOCATION}.json"
    assert run(body) == {
        "file": file,
        "pages": 3,
        "words": 63,
        "titles": ["The Corner Café", "The menu", "About us"],
        "skipped": 1,
        "left": 0,
    }
    assert capsys.readouterr().out.splitlines() == [
        "http://sample.invalid/: 32 words, 4 links",
        "http://sample.invalid/private.html is skipped: It is off limits, says robots.txt.",
        "http://sample.invalid/menu.html: 18 words, 1 links",
        "http://sample.invalid/about.html: 13 words, 1 links",
        f"{file}: 3 pages, 1 skipped",
    ]
    first = json.loads((scrapes / f"{INVOCATION}.json").read_text())["pages"][0]
    assert first == {
        "url": "http://sample.invalid/",
        "title": "The Corner Café",
        "description": "Coffee and cake since 1954.",
        "headings": [{"level": 1, "text": "The Corner Café"}],
        "words": 32,
        "links_out": ["https://example.org/map"],
    }


def test_a_second_attempt_writes_the_same_file(scrapes: Path) -> None:
    run("{}")
    run("{}")
    assert [path.name for path in scrapes.iterdir()] == [f"{INVOCATION}.json"]


def test_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRAPES_DIR", str(tmp_path / "here"))
    assert run("{}")["file"] == str(tmp_path / "here" / f"{INVOCATION}.json")


def test_the_nearest_pages_come_first_and_each_of_them_once() -> None:
    pages = {
        "/": links("/a", "/b", "/a#part", ""),
        "/a": links("/a/deep", "/", "b"),
        "/b": links("/b/deep", "/a"),
        "/a/deep": links("../", "/b/deep?x=1"),
        "/b/deep": links("/b/deep"),
        "/b/deep?x=1": links(),
    }
    with WebServer(pages) as web:
        assert paths(scrape(web.url), web) == list(pages)
        assert web.asked == ["/robots.txt", *pages]


def test_a_password_is_neither_used_nor_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with WebServer({"/": links("/a"), "/a": links()}) as web:
        found = scrape(web.url.replace("//", "//user:secret@"))
        assert paths(found, web) == ["/", "/a"]
    assert "secret" not in capsys.readouterr().out


def test_no_more_pages_than_wanted() -> None:
    pages = {f"/{number}": links(f"/{number + 1}", "/nowhere") for number in range(20)}
    with WebServer(pages) as web:
        found = scrape(f"{web.url}/0")
        assert paths(found, web) == ["/0", "/1", "/2", "/3", "/4", "/5", "/6", "/7", "/8"]
        assert len(found["skipped"]) == 1  # a broken link counts, so that many of them are no more work
        assert paths(scrape(f"{web.url}/0", pages_max=1), web) == ["/0"]


def test_it_stays_on_the_site() -> None:
    with WebServer({"/": links(), "/robots.txt": Page()}) as other:
        pages = {
            "/": links(other.url, "/leads-out", "/leads-in", "https://example.org/x", "mailto:a@b"),
            "/leads-out": Page(status=302, headers={"location": other.url}),
            "/leads-in": Page(status=301, headers={"location": "/in"}),
            "/in": links("/", "/leads-in", "/in"),
        }
        with WebServer(pages) as web:
            found = scrape(web.url)
            assert paths(found, web) == ["/", "/in"]
            assert found["pages"][0]["links_out"] == [f"{other.url}/", "https://example.org/x"]
            assert found["skipped"] == [
                {"url": f"{web.url}/leads-out", "reason": f"{other.url}/ is on another site."}
            ]
            assert web.asked.count("/in") == 1
        assert other.asked == []


def test_a_redirect_to_a_known_page_is_not_read_twice() -> None:
    old = Page(status=302, headers={"location": "/new"})
    with WebServer({"/": links("/old", "/new", "/home"), "/old": old, "/new": links()}) as web:
        web.pages["/home"] = [Page(status=302, headers={"location": "/"})]
        assert paths(scrape(web.url), web) == ["/", "/new"]


def test_robots_txt() -> None:
    rules = """
        User-agent: *
        Disallow: /

        User-agent: Quarterhour-Example
        Crawl-delay: 0
        Allow: /a/open
        Disallow: /a
    """
    robots = Page(body="\n".join(line.strip() for line in rules.strip().splitlines()), type="text/plain")
    sly = Page(status=302, headers={"location": "/a/hidden"})
    with WebServer({"/robots.txt": robots, "/": links("/a/b", "/a/open", "/sly")}) as web:
        web.pages |= {"/a/open": [links("/a/c")], "/sly": [sly], "/a/hidden": [links()]}
        found = scrape(web.url)
        assert paths(found, web) == ["/", "/a/open"]
        assert {skipped["url"].removeprefix(web.url) for skipped in found["skipped"]} == {
            "/a/b",
            "/a/c",
            "/sly",
        }
        assert all("robots.txt" in skipped["reason"] for skipped in found["skipped"])
        assert set(web.asked) == {"/robots.txt", "/", "/a/open", "/sly"}


def test_robots_txt_forbids_the_first_page() -> None:
    robots = Page(body="User-agent: *\nDisallow: /\n", type="text/plain")
    with WebServer({"/robots.txt": robots, "/": links()}) as web:
        with pytest.raises(DoNotRetry, match=r"off limits, says robots\.txt"):
            scrape(web.url)
        assert web.asked == ["/robots.txt"]


def test_robots_txt_that_cannot_be_had_now_may_forbid_everything() -> None:
    with WebServer({"/robots.txt": Page(status=500), "/": links()}) as web:
        with pytest.raises(Exception, match=r"robots\.txt answered 500") as raised:
            scrape(web.url)
        assert type(raised.value).__name__ == "TryLater"
        assert web.asked == ["/robots.txt"]


@pytest.mark.parametrize("body", ["Crawl-delay: x", "\0\xff: %", "<p>", "User-agent: *\nCrawl-delay: x"])
def test_robots_txt_that_is_none(body: str) -> None:
    with WebServer({"/robots.txt": Page(body=body), "/": links()}) as web:
        assert paths(scrape(web.url), web) == ["/"]


def test_robots_txt_that_python_cannot_read_may_forbid_everything() -> None:
    with WebServer({"/robots.txt": Page(body="User-agent: *\nCrawl-delay: ²"), "/": links()}) as web:
        with pytest.raises(DoNotRetry, match="cannot be understood, so nothing is allowed"):
            scrape(web.url)
        assert web.asked == ["/robots.txt"]


def test_the_delay_that_the_site_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = load("scrape-site-background")
    waits: list[float] = []

    async def sleep(delay_s: float) -> None:
        waits.append(delay_s)

    monkeypatch.setitem(handler.__globals__, "asyncio", SimpleNamespace(sleep=sleep))
    robots = Page(body="User-agent: *\nCrawl-delay: 7\n", type="text/plain")
    with WebServer({"/robots.txt": robots, "/": links("/a"), "/a": links("/b"), "/b": links()}) as web:
        for wanted_s in (2, 9):
            asyncio.run(call(handler, json.dumps({"url": web.url, "delay_s": wanted_s})))
    assert waits == [7, 7, 9, 9]


def test_it_stops_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    left_ms = iter([90_000, 60_000, 39_000])
    context = SimpleNamespace(aws_request_id=INVOCATION, get_remaining_time_in_millis=lambda: next(left_ms))
    with WebServer({"/": links("/a", "/b"), "/a": links(), "/b": links()}) as web:
        body = json.dumps({"url": web.url, "delay_s": 0})
        handler = load("scrape-site-background")
        result = asyncio.run(handler({"body": body, "isBase64Encoded": False}, context))
    assert (result["pages"], result["left"]) == (2, 1)


# Pages that are none

BAD_PAGES = [
    (Page(status=404), "answered 404 Not Found"),
    (Page(status=500), "answered 500 Internal Server Error"),
    (Page(body=b"%PDF", type="application/pdf"), "is application/pdf, not text/html or"),
    (Page(type=""), "is of no type, not text/html or"),
    (Page(body="x" * 1_000_001), "is larger than 1000000 bytes"),
    (Page(headers={"content-encoding": "gzip"}, body="no gzip"), "cannot be reached"),
    (Page(status=302, headers={"location": "/bad"}), "is behind more than 5 redirects"),
    (Page(status=302, headers={"location": "mailto:a@b"}), "leads to what is no address"),
    (Page(status=302, headers={"location": "http://["}), "cannot be reached|is no address such as"),
    (Page(status=302), "answered 302 Found"),
]


@pytest.mark.parametrize(("page", "sentence"), BAD_PAGES)
def test_a_bad_page_is_skipped_and_the_others_are_read(page: Page, sentence: str) -> None:
    with WebServer({"/": links("/bad", "/good"), "/bad": page, "/good": links()}) as web:
        found = scrape(web.url)
        assert paths(found, web) == ["/", "/good"]
        (skipped,) = found["skipped"]
        assert skipped["url"] == f"{web.url}/bad"
        assert re.search(sentence, skipped["reason"])


def test_a_bad_first_page() -> None:
    with WebServer({"/gone": Page(status=404), "/busy": Page(status=503)}) as web:
        with pytest.raises(DoNotRetry, match="answered 404"):
            scrape(f"{web.url}/gone")
        with pytest.raises(Exception, match="answered 503") as raised:
            scrape(f"{web.url}/busy")
        assert type(raised.value).__name__ == "TryLater"
        web.pages["/busy"] = [Page(status=503, headers={"retry-after": "5"})]
        with pytest.raises(RetryAfter, match="answered 503") as asked:
            scrape(f"{web.url}/busy")
        assert asked.value.delay_s == 5


# What a page says


def test_what_is_text_and_what_is_not() -> None:
    html = """<!doctype html><title> A  title &amp;
        more </title><META NAME=Description CONTENT=" x  y ">
        <h2>Second</h2><h1>First <em>one</em></h1><h4>no</h4><h3></h3>
        <script>not a word</script><style>nor {here: 1}</style><noscript>nor this</noscript>
        <p>two<p>words<!-- not this -->"""
    found, _ = read_html(html)
    assert (found["title"], found["description"]) == ("A title & more", "x y")
    assert found["headings"] == [
        {"level": 2, "text": "Second"},
        {"level": 1, "text": "First one"},
        {"level": 3, "text": ""},
    ]
    assert found["words"] == 6


def test_links_as_a_browser_sees_them() -> None:
    html = "<a href=c>1</a><a href=' /d?x=1#top '>2</a><a href=//other/e>3</a><a>4</a><a href=c#x>5</a>"
    bad = "".join(f"<a href='{target}'>" for target in ("mailto:a@b", "javascript:1", "http://[", "tel:1"))
    assert read_html(html + bad)[1] == ["http://h/a/c", "http://h/d?x=1", "http://other/e"]
    assert read_html("<base href='/z/'>" + html)[1][0] == "http://h/z/c"
    assert read_html("<base href='mailto:x'>" + html)[1][0] == "http://h/a/c"


@pytest.mark.parametrize(
    ("content", "charset"),
    [
        ("Grüße", None),
        ("Grüße".encode("latin-1"), "iso-8859-1"),
        ("Grüße".encode("latin-1"), None),
        ("Grüße".encode("latin-1"), "utf-8"),
        ("Grüße", "no-such-charset"),
        ("Grüße", "rot13"),
    ],
)
def test_encodings(content: str | bytes, charset: str | None) -> None:
    html = content.encode() if isinstance(content, str) else content
    assert read_html(b"<h1>" + html, charset=charset)[0]["headings"] == [{"level": 1, "text": "Grüße"}]


@pytest.mark.parametrize("html", ["", "\0", "plain", "<frameset><frame>", "<!--", b"\xff\xfe", "<a href>"])
def test_what_is_hardly_a_page(html: str | bytes) -> None:
    assert read_html(html)[1] in ([], ["http://h/a/b"])


PIECES = ["<a href=", "<base href=", "//", "http:", "[", "%", ":", "x", ">", "\0", "é", "'", "<h1", "\\"]


@hypothesis.given(st.one_of(st.binary(), st.lists(st.sampled_from(PIECES))))
def test_no_html_is_too_odd(html: bytes | list[str]) -> None:
    json.dumps(read_html(html if isinstance(html, bytes) else "".join(html)))


# Bad requests

GOOD = {"url": "http://127.0.0.1:1/"}
BAD_REQUESTS = [
    ("no json", "must be JSON"),
    ("[]", "must be a JSON object"),
    (json.dumps({**GOOD, "page_max": 5}), "'page_max' is no field .* known are url, pages_max, delay_s"),
    (json.dumps({"pages_max": 5}), "None is no address such as"),
    (json.dumps({"url": "ftp://example.org/"}), "'ftp://example.org/' is no address such as"),
    *(
        (json.dumps({**GOOD, "pages_max": bad}), "'pages_max' must be")
        for bad in (0, 101, 1.5, "5", True, None)
    ),
    *(
        (json.dumps({**GOOD, "delay_s": bad}), "'delay_s' must be")
        for bad in (-1, 31, "1", True, float("nan"))
    ),
]


@pytest.mark.parametrize(("body", "sentence"), BAD_REQUESTS)
def test_a_bad_request_is_not_tried_again(scrapes: Path, body: str, sentence: str) -> None:
    with pytest.raises(DoNotRetry, match=sentence):
        run(body)
    assert not scrapes.exists()

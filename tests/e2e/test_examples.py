"""The example functions as they are, in a real system: with `{}`, and with what a user would send.

They have a worker's environment and nothing else, so whatever they need is in this project.
"""

import json
import shutil
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pypdf
import pytest
import pytest_asyncio

from tests.system import System
from tests.unit.functions import FOLDER
from tests.web_server import Page, WebServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Retries after a moment instead of minutes.
SETTINGS = """
[functions.generate-report-background]
retry_delay = 0.1

[functions.scrape-site-background]
retry_delay = 0.1

[functions.slow-batch-background]
timeout = 5.8
retries = 20
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with System(tmp_path_factory.mktemp("examples"), {}) as system:
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(FOLDER, system.functions, dirs_exist_ok=True, ignore=skipped)
        slow = "def clean(record):\n    __import__('time').sleep(0.01)"
        batch = (FOLDER / "batch-background.py").read_text()
        system.write("slow-batch-background", batch.replace("def clean(record):", slow))
        (system.folder / "quarterhour.toml").write_text(SETTINGS)
        await system.start_gateway()
        await system.start_runner()
        yield system


async def ended(system: System, name: str, request: Any, state: str = "succeeded") -> dict[str, Any]:
    """The status at the end of an invocation."""
    id = await system.enqueue(name, json=request)
    status = await system.in_state(id, "succeeded", "dead", deadline_s=40)
    assert status["state"] == state, status
    return status


def written(system: System, status: dict[str, Any], kind: str) -> bytes:
    """The file of an invocation: it is where the result says, and it is called by the id."""
    path = Path(status["result"]["file"])
    assert path.parent == Path(".quarterhour") / kind
    assert path.stem == status["id"]
    return (system.folder / path).read_bytes()


def text_of(pdf: bytes) -> list[str]:
    pages = pypdf.PdfReader(BytesIO(pdf)).pages
    return "\n".join(page.extract_text() for page in pages).splitlines()


# The report


async def test_a_report_of_the_samples(system: System) -> None:
    status = await ended(system, "generate-report-background", {})
    assert (status["result"]["pages"], status["result"]["rows"]) == (1, 12)
    lines = text_of(written(system, status, "reports"))
    assert lines[0] == "Three days at the Corner Café"
    assert {"Sales 6 cups 323, euros 938.5", "Tuesday Espresso 71 177.5", "Page 1"} <= set(lines)


async def test_a_report_of_sources_one_of_which_fails_once(system: System) -> None:
    json_page = Page(body=json.dumps([{"day": "Mon", "cups": 3}]), type="application/json")
    csv_page = Page(body="day,cups\nTue,4\nWed,5\n", type="text/csv")
    with WebServer({"/cups.json": [Page(status=503), json_page], "/cups.csv": csv_page}) as web:
        sources = [
            {"name": "From JSON", "url": f"{web.url}/cups.json"},
            {"name": "From CSV", "url": f"{web.url}/cups.csv"},
            {"name": "Given", "rows": [{"day": "Thu", "cups": 6}]},
        ]
        request = {"title": "Cups of a week", "sources": sources}
        status = await ended(system, "generate-report-background", request)
        assert sorted(web.asked) == ["/cups.csv", "/cups.csv", "/cups.json", "/cups.json"]
    first, _ = status["attempts"]
    assert first["error"]["type"] == "TryLater"
    assert first["error"]["message"] == f"{web.url}/cups.json answered 503 Service Unavailable"
    assert status["result"]["rows"] == 4
    lines = text_of(written(system, status, "reports"))
    assert lines[0] == "Cups of a week"
    assert {"From JSON 1 cups 3", "From CSV 2 cups 9", "Given 1 cups 6", "Wed 5"} <= set(lines)


async def test_a_report_of_a_source_that_is_not_there(system: System) -> None:
    with WebServer({}) as web:
        request = {"sources": [{"name": "Gone", "url": f"{web.url}/gone.json"}]}
        status = await ended(system, "generate-report-background", request, "dead")
    assert (status["attempt"], status["error"]["type"]) == (1, "DoNotRetry")
    assert status["error"]["message"].endswith("/gone.json answered 404 Not Found")
    assert not (system.folder / ".quarterhour" / "reports" / f"{status['id']}.pdf").exists()


# The site


async def test_the_sample_site(system: System) -> None:
    status = await ended(system, "scrape-site-background", {})
    assert (status["result"]["pages"], status["result"]["skipped"]) == (3, 1)
    pages = json.loads(written(system, status, "scrapes"))["pages"]
    assert [page["title"] for page in pages] == ["The Corner Café", "The menu", "About us"]
    assert "http://sample.invalid/menu.html: 18 words, 1 links" in status["attempts"][0]["logs"]


async def test_a_real_site(system: System) -> None:
    with WebServer({"/": Page(body="elsewhere"), "/robots.txt": Page()}) as other:
        links = ("/old", "/secret/plan", other.url, "/broken", "/picture", "/away")
        html = "<title>Home</title><h1>Welcome</h1>" + "".join(f"<a href='{link}'>x</a>" for link in links)
        pages = {
            "/robots.txt": Page(body="User-agent: *\nDisallow: /secret\n", type="text/plain"),
            "/": Page(body=html),
            "/old": Page(status=301, headers={"location": "/new"}),
            "/new": Page(body="<title>Neu</title><p>Grüße <a href='/'>home</a>".encode()),
            "/secret/plan": Page(body="<p>nobody reads this"),
            "/broken": Page(status=500),
            "/picture": Page(body=b"\x89PNG", type="image/png"),
            "/away": Page(status=302, headers={"location": other.url}),
        }
        with WebServer(pages) as web:
            status = await ended(system, "scrape-site-background", {"url": web.url, "delay_s": 0})
            assert web.asked == ["/robots.txt", "/", "/old", "/new", "/broken", "/picture", "/away"]
        assert other.asked == []
    found = json.loads(written(system, status, "scrapes"))
    home, new = found["pages"]
    assert (home["title"], home["headings"]) == ("Home", [{"level": 1, "text": "Welcome"}])
    assert home["links_out"] == [f"{other.url}/"]
    assert (new["url"], new["title"], new["words"]) == (f"{web.url}/new", "Neu", 2)
    reasons = {skipped["url"].removeprefix(web.url): skipped["reason"] for skipped in found["skipped"]}
    assert reasons == {
        "/secret/plan": "It is off limits, says robots.txt.",
        "/broken": f"{web.url}/broken answered 500 Internal Server Error",
        "/picture": f"{web.url}/picture is image/png, not text/html or application/xhtml+xml.",
        "/away": f"{other.url}/ is on another site.",
    }
    assert status["result"]["titles"] == ["Home", "Neu"]


async def test_a_site_that_is_down_at_first(system: System) -> None:
    with WebServer({"/": [Page(status=502), Page(body="<title>Up again</title>")]}) as web:
        status = await ended(system, "scrape-site-background", {"url": web.url})
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["failed", "succeeded"]
    assert status["result"]["titles"] == ["Up again"]


# The batch


async def test_the_sample_batch(system: System) -> None:
    status = await ended(system, "batch-background", {})
    assert (status["result"]["records"], status["result"]["rejected"]) == (200, 8)
    assert len(written(system, status, "batches").splitlines()) == 200
    log = status["attempts"][0]["logs"]
    assert "batch: 50 of 200, 2 rejected" in log
    assert "batch: 200 of 200, 8 rejected" in log


async def test_a_batch_of_records(system: System) -> None:
    good = {"name": "ada  lovelace", "email": "Ada@Example.org", "phone": "0044 20 7946 0018"}
    status = await ended(system, "batch-background", {"records": [good, {"name": "Bob"}, 5]})
    first, *rejected = [json.loads(line) for line in written(system, status, "batches").splitlines()]
    contact = {"name": "Ada Lovelace", "email": "ada@example.org", "phone": "+442079460018"}
    assert first == {"contact": contact}
    assert rejected == status["result"]["first_rejected"]
    assert [line["rejected"] for line in rejected] == [2, 3]
    assert status["result"]["domains"] == {"example.org": 1}


async def test_a_batch_that_is_too_long_for_one_attempt(system: System) -> None:
    # The batch with another `clean`: it stops 5 s before its limit, so that 1.2 s of work are too much.
    status = await ended(system, "slow-batch-background", {"count": 120})
    *stopped, last = status["attempts"]
    assert stopped
    for attempt in stopped:
        assert (attempt["outcome"], attempt["error"]["type"]) == ("failed", "RetryAfter")
        assert attempt["error"]["message"].startswith("The time is over, ")
    assert "batch: goes on after the first " in last["logs"]
    assert status["result"]["accepted"] + status["result"]["rejected"] == 120
    contacts = [json.loads(line) for line in written(system, status, "batches").splitlines()]
    assert [line["rejected"] for line in contacts if "rejected" in line] == [18, 32, 58, 92, 98]
    assert len(contacts) == 120

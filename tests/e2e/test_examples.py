"""The example functions as they are, in a real system: with `{}`, and with what a user would send.

They have a worker's environment and nothing else, so whatever they need is in this project. Those in
JavaScript and TypeScript need Node.js.
"""

import asyncio
import hmac
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pypdf
import pytest
import pytest_asyncio

from tests.node import node
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


SECRET = "it is a secret"


@pytest.fixture(scope="module")
def watched() -> Iterator[WebServer]:
    """The site that is watched."""
    with WebServer({"/": Page(body="here")}) as web:
        yield web


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory, watched: WebServer) -> AsyncIterator[System]:
    async with System(tmp_path_factory.mktemp("examples"), {}) as system:
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(FOLDER, system.functions, dirs_exist_ok=True, ignore=skipped)
        slow = "def clean(record):\n    __import__('time').sleep(0.01)"
        batch = (FOLDER / "batch-background.py").read_text()
        system.write("slow-batch-background", batch.replace("def clean(record):", slow))
        (system.folder / "quarterhour.toml").write_text(SETTINGS)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SITES", f"{watched.url}/")
            patch.setenv("WEBHOOK_SECRET", SECRET)
            await system.start_gateway("--call-scheduled")
            await system.start_runner("--function-environment", "SITES,WEBHOOK_SECRET")
        yield system


async def ended(system: System, name: str, request: Any, state: str = "succeeded") -> dict[str, Any]:
    """The status at the end of an invocation."""
    id = await system.enqueue(name, json=request)
    status = await system.in_state(id, "succeeded", "dead", deadline_s=60)
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


# The webhook, in JavaScript


async def test_a_webhook_is_kept_once(system: System) -> None:
    node()
    body = '{"action":  "opened", "by": "Zoë"}'.encode()
    signature = f"sha256={hmac.digest(SECRET.encode(), body, 'sha256').hex()}"
    headers = {
        "content-type": "application/json",
        "x-github-event": "issues",
        "x-github-delivery": "delivery-1",
        "x-hub-signature-256": signature,
    }
    # Senders repeat themselves; here all at once, to as many workers.
    answers = await asyncio.gather(
        *(system.post("receive-webhook", content=body, headers=headers) for _ in range(3))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 200, 201]
    (file,) = (system.folder / ".quarterhour" / "webhooks").iterdir()
    assert file.name == "delivery-1.json"
    assert json.loads(file.read_text())["payload"] == {"action": "opened", "by": "Zoë"}
    tampered = await system.post(
        "receive-webhook", content=body.replace(b"opened", b"closed"), headers=headers
    )
    assert tampered.status_code == 401
    assert (await system.post("receive-webhook", json={})).status_code == 401


# The short links, in TypeScript


async def test_a_short_link(system: System) -> None:
    node()
    links = (await system.get("/go")).json()
    answer = await system.get("/go/python?q=1")
    assert (answer.status_code, answer.headers["location"]) == (302, f"{links['python']}?q=1")
    assert (await system.get("/go/nothing")).status_code == 404


# The guestbook, an application, and its export, which streams


async def test_the_guestbook_and_its_export(system: System) -> None:
    url = f"{system.url}/guestbook"
    async with httpx.AsyncClient(headers={"accept": "text/html"}) as browser:
        written = await browser.post(url, data={"name": "Ada <3", "text": "a, b"})
        assert (written.status_code, written.headers["location"]) == (303, "/guestbook")
        page = await browser.get(url)
        assert "<b>Ada &lt;3</b>" in page.text
    (entry,) = (await system.get("/guestbook")).json()["entries"]
    answer = await system.post("export-guestbook", json={})
    assert answer.headers["content-disposition"] == 'attachment; filename="guestbook.csv"'
    assert answer.text.splitlines() == [
        "id,written_at,name,text",
        f'1,{entry["written_at"]},Ada <3,"a, b"',
    ]


async def test_a_large_export_comes_bit_by_bit(system: System) -> None:
    answer = await system.get("/.netlify/functions/export-guestbook?rows=200000")
    assert "content-length" not in answer.headers
    lines = answer.text.splitlines()
    assert (len(lines), lines[-1].split(",")[0]) == (200_001, "200000")


# The watch, scheduled


async def test_sites_are_watched(system: System, watched: WebServer) -> None:
    name = "watch-sites"
    assert (await system.post(name, json={})).json() == {"up": 1, "changes": []}
    failed = await system.metric("quarterhour_outcomes_total", function=name, result="failed")
    watched.pages["/"] = [Page(status=503)]
    answer = await system.post(name, json={})
    assert (answer.status_code, answer.json()["errorType"]) == (500, "SitesDown")
    assert await system.metric("quarterhour_outcomes_total", function=name, result="failed") == failed + 1
    watched.pages["/"] = [Page(body="here again")]
    (change,) = (await system.post(name, json={})).json()["changes"]
    assert change.startswith(f"{watched.url}/ is up again; it was down since ")

"""The page of an invocation in a real browser, against a real system: it follows the invocation by itself."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path

import pytest
import pytest_asyncio
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from tests.parts import need
from tests.system import System
from tests.waiting import eventually_sync

pytestmark = pytest.mark.asyncio(loop_scope="module")

FUNCTIONS = {
    # Runs until a file named like its body appears.
    "slow-background": """
        import pathlib, time

        def handler(event, context):
            while not pathlib.Path(event["body"]).exists():
                time.sleep(0.01)
            return {"pages": 12, "title": "<b>Zoë & Co</b>"}
    """,
    "fails-background": """
        config = {"retries": 0}

        def handler(event, context):
            print("<h1>printed</h1>")
            raise ValueError("</pre><script>document.title = 'taken over'</script>")
    """,
}
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=900,1200",
)
# What the driver says of an element of a page that gave way to the next one.
BETWEEN_PAGES = (
    "no such element",
    "stale element",
    "aborted by navigation",
    "does not belong to the document",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with System(tmp_path_factory.mktemp("page"), FUNCTIONS) as system:
        await system.start_gateway()
        await system.start_runner()
        yield system


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    # Both named, so that selenium looks for nothing in the network.
    options = webdriver.ChromeOptions()
    options.binary_location = need("chromium", package="chromium")
    service = Service(executable_path=need("chromedriver", package="chromium-driver"))
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=service)
    try:
        yield browser
    finally:
        browser.quit()


def text_of(browser: webdriver.Chrome) -> str:
    """The page's visible text; empty while it is being loaded again."""
    try:
        return browser.find_element(By.TAG_NAME, "main").text
    except WebDriverException as error:
        if any(words in str(error) for words in BETWEEN_PAGES):
            return ""
        raise


def see(browser: webdriver.Chrome, *words: str) -> str:
    """Wait until all of the words stand on the page, which nobody loads again meanwhile."""

    def look() -> str | None:
        text = text_of(browser)
        return text if all(word in text for word in words) else None

    return eventually_sync(look, deadline_s=60, what=f"the page said {words}") or ""


async def open_page(system: System, browser: webdriver.Chrome, name: str, body: str = "") -> str:
    """Show the page of a new invocation; its id."""
    id = await system.enqueue(name, content=body, headers={"content-type": "text/plain"})
    await asyncio.to_thread(browser.get, f"{system.url}/v1/invocations/{id}")
    return id


def since_loaded(browser: webdriver.Chrome) -> object:
    """A moment that every load of the page changes."""
    return browser.execute_script("return performance.timeOrigin")


async def test_it_follows_an_invocation_to_its_end(system: System, browser: webdriver.Chrome) -> None:
    id = await open_page(system, browser, "slow-background", "followed")
    await asyncio.to_thread(see, browser, "slow-background", "Running", "Attempt 1 has been running for")
    await asyncio.sleep(1)  # so that it is a matter of seconds
    (system.folder / "followed").touch()
    status = await system.in_state(id, "succeeded")
    began, ended = (datetime.fromisoformat(status[key]) for key in ("started_at", "finished_at"))
    text = await asyncio.to_thread(see, browser, "Succeeded", "Attempt 1 succeeded in ")
    (took_s,) = re.findall(r"Attempt 1 succeeded in ([0-9.]+) s\.", text)
    assert float(took_s) == pytest.approx((ended - began).total_seconds(), abs=0.1)
    assert '"title": "<b>Zoë & Co</b>"' in text
    assert browser.title == "succeeded · slow-background"

    loaded = since_loaded(browser)
    await asyncio.sleep(3)  # longer than it had waited before each refresh: there must be none
    assert since_loaded(browser) == loaded


async def test_what_failed_is_shown_as_text(system: System, browser: webdriver.Chrome) -> None:
    await open_page(system, browser, "fails-background")
    text = await asyncio.to_thread(
        see, browser, "Dead", "ValueError", "</pre><script>document.title = 'taken over'</script>"
    )
    assert "fails-background.py" in text
    assert "line 6, in handler" in text
    assert "<h1>printed</h1>" in text
    assert browser.title == "dead · fails-background"
    assert browser.find_elements(By.TAG_NAME, "script") == []


async def test_its_reader_can_stop_it(system: System, browser: webdriver.Chrome) -> None:
    await open_page(system, browser, "slow-background", "stopped")

    def stopped() -> bool:
        if browser.current_url.endswith("?refresh=off"):
            return True
        # Just then it may refresh itself: the link is gone, or the click leads nowhere.
        with contextlib.suppress(WebDriverException):
            browser.find_element(By.LINK_TEXT, "Stop that").click()
        return False

    await asyncio.to_thread(eventually_sync, stopped, what="the link had led to the page that stays")
    await asyncio.to_thread(see, browser, "This page does not refresh itself now.")
    (system.folder / "stopped").touch()


async def test_the_styles_are_the_pages_own_and_nothing_is_refused(
    system: System, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    browser.get_log("browser")  # type: ignore[no-untyped-call]
    await open_page(system, browser, "fails-background")
    await asyncio.to_thread(see, browser, "Dead")
    state = browser.find_element(By.CLASS_NAME, "state")
    assert state.value_of_css_property("border-top-style") == "solid"
    complaints = [entry["message"] for entry in browser.get_log("browser")]  # type: ignore[no-untyped-call]
    assert [text for text in complaints if "favicon.ico" not in text] == []

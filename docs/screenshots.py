"""Makes the pictures of the README out of the real thing: `make screenshots`.

It starts `quarterhour up` on functions of its own in a temporary folder, calls them, and photographs the
invocations' pages with the Chromium of this machine.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT = 860, 760
READY_S = 60.0
POLL_S = 0.1

FUNCTIONS = {
    "import-orders-background": """
import time

config = {"retries": 1, "retry_delay": 1}


def handler(event, context):
    print("connecting to the shop")
    if context.attempt == 1:
        raise ConnectionError("the shop did not answer within 10 s")
    for done in (40, 80, 120):
        print(f"{done} of 120 orders")
        time.sleep(0.1)
    return {"orders": 120, "new customers": 7, "total": "8,431.20 EUR"}
"""
}


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """`quarterhour up` on the functions; its URL."""
    (folder / "functions").mkdir()
    for name, source in FUNCTIONS.items():
        (folder / "functions" / f"{name}.py").write_text(source)
    command = (sys.executable, "-m", "quarterhour", "up", "--port", "0")
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as up:
        try:
            yield next(line.split()[1] for line in up.stdout or () if line.startswith("ready "))
        finally:
            up.terminate()


@contextmanager
def browser() -> Iterator[Chrome]:
    """A browser without a window."""
    options = ChromeOptions()
    for switch in ("headless", "no-sandbox", "disable-gpu", "hide-scrollbars", "force-device-scale-factor=2"):
        options.add_argument(f"--{switch}")
    options.add_argument(f"--window-size={WIDTH},{HEIGHT}")
    options.binary_location = "/usr/bin/chromium"
    driver = Chrome(options=options, service=ChromeService("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as url, browser() as driver:
        sent = httpx.post(f"{url}/.netlify/functions/import-orders-background", json={})
        address = url + sent.headers["location"]
        ends_at = time.monotonic() + READY_S
        while httpx.get(address, params={"wait": 20}).json()["state"] != "succeeded":
            if time.monotonic() > ends_at:
                sys.exit("The invocation has not succeeded; see above.")
            time.sleep(POLL_S)
        driver.get(address)
        size = driver.execute_script("return document.documentElement.scrollHeight")
        driver.set_window_size(WIDTH, size + HEIGHT - driver.execute_script("return window.innerHeight"))
        path = IMAGES / "invocation.png"
        driver.save_screenshot(str(path))
        print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    main()

"""What is saved in the functions folder while `up` runs: live at the next invocation, and nothing fails."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.up import Up, leaving_nothing
from tests.waiting import eventually_sync

LIVE_S = 1.0
CLIENTS = 4
SAY = "def handler(event, context):\n    return {{'statusCode': 200, 'body': '{}'}}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("reload")
    (project / "functions").mkdir()
    (project / "functions" / "steady.py").write_text(SAY.format("steady"))
    return project / "functions"


@pytest.fixture(scope="module")
def up(folder: Path) -> Iterator[Up]:
    with leaving_nothing() as ups:
        ups.append(Up(folder.parent, "--port", "0"))
        yield ups[0]


@pytest.fixture(scope="module")
def url(up: Up) -> str:
    return up.ready()


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


def call(client: httpx.Client, name: str) -> httpx.Response:
    return client.post(f"/.netlify/functions/{name}", json={})


def becomes(client: httpx.Client, name: str, text: str, status: int = 200) -> None:
    """Wait until every runner answers so: several answers in a row do."""

    def so() -> bool:
        return all(
            (answer.status_code, text in answer.text) == (status, True)
            for answer in (call(client, name) for _ in range(8))
        )

    eventually_sync(so, what=f"{name} answers {status} with {text!r}")


def told(client: httpx.Client, name: str) -> dict[str, object] | None:
    answer = client.get(f"/v1/functions/{name}")
    return answer.json() if answer.status_code == 200 else None


def is_told(client: httpx.Client, name: str, check: Callable[[dict[str, object]], bool]) -> None:
    """Wait until the gateway tells so of a function: what is new is served before it is announced."""
    eventually_sync(
        lambda: (found := told(client, name)) is not None and check(found), what=f"it is told of {name}"
    )


@contextmanager
def under_load(url: str, name: str) -> Iterator[Callable[[], list[str]]]:
    """Clients that call a function without a pause; gives a look at what they saw."""
    seen: list[str] = []
    stop = threading.Event()

    def keep_calling() -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not stop.is_set():
                answer = call(client, name)
                seen.append(f"{answer.status_code} {answer.text}")

    threads = [threading.Thread(target=keep_calling) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: list(seen)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def write(path: Path, text: str) -> None:
    path.write_text(text)


def replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text)
    beside.replace(path)


def remove_and_write(path: Path, text: str) -> None:
    began = time.monotonic()
    path.rename(path.with_name(f"{path.name}~"))
    time.sleep(0.02)  # what some editors leave between the two
    path.write_text(text)
    if time.monotonic() - began > 0.25:
        pytest.skip("the machine stood still between the two, so that the function was removed for a while")
    path.with_name(f"{path.name}~").unlink()


def write_in_two_halves(path: Path, text: str) -> None:
    began = time.monotonic()
    with path.open("w") as file:
        file.write(text[: len(text) // 2])
        file.flush()
        time.sleep(0.05)
        file.write(text[len(text) // 2 :])
    if time.monotonic() - began > 0.1:
        pytest.skip("the machine stood still between the halves, so that the first was a save of its own")


@pytest.mark.parametrize("save", [write, replace, remove_and_write, write_in_two_halves])
def test_a_save_is_live_within_a_second_under_load_and_no_request_fails(
    folder: Path, url: str, client: httpx.Client, save: Callable[[Path, str], None]
) -> None:
    name = save.__name__
    path = folder / f"{name}.py"
    path.write_text(SAY.format("version 0"))
    becomes(client, name, "version 0")
    took_s = []
    with under_load(url, name) as seen:
        for version in range(1, 6):
            save(path, SAY.format(f"version {version}"))
            began = time.monotonic()
            wanted = f"200 version {version}"
            eventually_sync(lambda wanted=wanted: wanted in seen(), what=f"{wanted} was seen")  # type: ignore[misc]
            took_s.append(time.monotonic() - began)
        becomes(client, name, "version 5")
    assert {answer[:-1] for answer in seen()} == {"200 version "}, set(seen())
    assert statistics.median(took_s) < LIVE_S, took_s


def test_a_running_attempt_finishes_on_the_old_code(folder: Path, client: httpx.Client) -> None:
    source = """
import pathlib, time
def handler(event, context):
    if event["body"] == "probe":
        return {version}
    pathlib.Path(event["body"] + ".begun").touch()
    while not pathlib.Path(event["body"] + ".go").exists():
        time.sleep(0.01)
    return {version}
"""
    path = folder / "slow-background.py"
    path.write_text(source.format(version=1))
    eventually_sync(lambda: told(client, "slow-background"), what="it is announced")
    gate = folder.parent / "gate"

    def enqueue(body: str) -> str:
        answer = client.post(
            "/.netlify/functions/slow-background", content=body, headers={"content-type": "text/plain"}
        )
        return answer.headers["location"]

    def ended(location: str) -> dict[str, Any]:
        status: dict[str, Any] = client.get(location, params={"wait": 20}).json()
        return status

    old = enqueue(str(gate))
    eventually_sync(gate.with_name("gate.begun").exists, what="the old code runs")
    path.write_text(source.format(version=2))
    runners = {target["labels"]["runner"] for target in client.get("/v1/runners/targets").json()}
    reloaded = set()

    def both_have_reloaded() -> bool:
        probe = ended(enqueue("probe"))
        if probe["result"] == 2:
            reloaded.add(probe["attempts"][0]["runner"])
        return reloaded == runners

    eventually_sync(both_have_reloaded, what="both runners run the new code beside it")
    new = enqueue(str(gate))
    gate.with_name("gate.go").touch()
    assert ended(old)["result"] == 1
    assert ended(new)["result"] == 2


def test_a_new_function_is_served_and_a_deleted_one_withdrawn(folder: Path, client: httpx.Client) -> None:
    path = folder / "guest.py"
    assert call(client, "guest").status_code == 404
    path.write_text(SAY.format("here"))
    becomes(client, "guest", "here")
    path.unlink()
    becomes(client, "guest", "Function not found", status=404)
    assert told(client, "guest") is None
    assert call(client, "steady").text == "steady"
    (folder / "guest").mkdir()
    (folder / "guest" / "index.py").write_text(SAY.format("back"))
    becomes(client, "guest", "back")


def test_a_broken_save_shows_its_error_and_keeps_the_others(
    folder: Path, client: httpx.Client, up: Up
) -> None:
    path = folder / "fragile.py"
    path.write_text(SAY.format("whole"))
    becomes(client, "fragile", "whole")
    path.write_text("def handler(event, context:\n    return 1\n")
    becomes(client, "fragile", "functions/fragile.py, line 1, is not valid Python", status=500)
    is_told(client, "fragile", lambda told: "is not valid Python" in str(told["error"]))
    assert call(client, "steady").text == "steady"
    lines = [line for line in up.log.read_text().splitlines() if "function_cannot_run" in line]
    assert len([line for line in lines if "fragile" in line]) == 1, "it is said once, not by every runner"
    path.write_text(SAY.format("whole again"))
    becomes(client, "fragile", "whole again")
    is_told(client, "fragile", lambda told: told["error"] is None)


def test_a_module_that_functions_share_is_loaded_anew(folder: Path, client: httpx.Client) -> None:
    (folder / "common").mkdir()
    (folder / "common" / "__init__.py").write_text("WORD = 'one'\n")
    (folder / "sharing.py").write_text(
        "from common import WORD\ndef handler(event, context): return {'statusCode': 200, 'body': WORD}\n"
    )
    becomes(client, "sharing", "one")
    (folder / "common" / "__init__.py").write_text("WORD = 'three'\n")
    becomes(client, "sharing", "three")


def test_what_the_projects_file_says_is_live_too(folder: Path, client: httpx.Client, up: Up) -> None:
    (folder / "told.py").write_text(
        "import os\ndef handler(event, context):\n"
        "    return {'statusCode': 200, 'body': os.environ.get('WORD', 'nothing')}\n"
    )
    becomes(client, "told", "nothing")
    file = folder.parent / "quarterhour.toml"
    file.write_text("[functions.told]\ntimeout = 7\nenvironment = {WORD = 'something'}\n")
    becomes(client, "told", "something")
    is_told(client, "told", lambda told: told["timeout_s"] == 7)
    file.write_text("[functions.told\n")
    eventually_sync(lambda: "is not valid TOML" in up.log.read_text(), what="the error is said")
    assert call(client, "told").text == "something"
    file.unlink()
    becomes(client, "told", "nothing")


def test_a_path_of_its_own_is_live_too(folder: Path, client: httpx.Client) -> None:
    source = """
config = {{"path": {}, "excluded_path": "/*/no", "method": ["GET", "HEAD"]}}
def handler(event, context):
    body = f"{{event['path']}} {{event['rawUrl'].partition('//')[2]}} {{context.params}}"
    return {{"statusCode": 200, "body": body}}
"""
    path, host = folder / "roaming.py", client.base_url.netloc.decode()

    def at(*paths: str) -> list[tuple[int, str]]:
        answers = [client.get(path) for path in paths]
        return [(one.status_code, one.text if one.is_success else "") for one in answers]

    path.write_text(source.format(["/one/:id", "/one"]))
    here = [(200, f"/one {host}/one {{}}"), (200, f"/one/a%20b/ {host}/one/a%20b/ {{'id': 'a%20b'}}")]
    nowhere = [(404, "")] * 3
    eventually_sync(
        lambda: (
            at("/one", "/one/a%20b/", "/one/no", "/two/7", "/.netlify/functions/roaming") == here + nowhere
        ),
        what="it is where it says",
    )
    assert client.post("/one/7").status_code == 404
    assert client.head("/one/7").status_code == 200
    path.write_text(source.format("'/two/*'"))
    there = [(200, f"/two/7 {host}/two/7 {{'0': '7'}}")]
    eventually_sync(lambda: at("/two/7", "/one", "/one/7") == there + nowhere[1:], what="it has moved")
    path.write_text(source.format("'/v1/users'"))
    error = "config: path is '/v1/users', but must be none of the gateway's own addresses"
    eventually_sync(
        lambda: all(error in client.get("/.netlify/functions/roaming").text for _ in range(8)),
        what="every runner says what is wrong",
    )
    path.write_text(SAY.format("settled"))
    becomes(client, "roaming", "settled")
    assert at("/two/7") == nowhere[1:2]


def test_a_folder_that_is_replaced_is_watched_on(folder: Path, client: httpx.Client) -> None:
    (folder / "moving.py").write_text(SAY.format("before"))
    becomes(client, "moving", "before")
    away = folder.with_name("away")
    folder.rename(away)
    assert call(client, "moving").text == "before", "what was read is served on"
    away_again = folder.with_name("another")
    away_again.mkdir()
    for path in away.glob("*.py"):
        (away_again / path.name).write_bytes(path.read_bytes())
    (away_again / "moving.py").write_text(SAY.format("after"))
    away_again.rename(folder)
    becomes(client, "moving", "after")
    (folder / "moving.py").write_text(SAY.format("at last"))
    becomes(client, "moving", "at last")

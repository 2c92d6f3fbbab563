"""What functions list and what `.env` says, with `up`: there before they are served, live when saved."""

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.packages import requirements, wheel
from tests.up import Up, leaving_nothing, living
from tests.waiting import eventually_sync

HANDLER = """
import os
def handler(event, context):
    return {"statusCode": 200, "body": os.environ.get("WORD", "") + os.environ.get("QUARTERHOUR_SLOTS", "")}
"""
USES = """
import tiny
def handler(event, context):
    return {"statusCode": 200, "body": tiny.VERSION}
"""
DOTENV = "WORD=project\nQUARTERHOUR_SLOTS=1\nSECRET=open sesame\nhunter2 hunter2\n"
# A build backend that never ends.
BACKEND = """
import os, pathlib, time
here = pathlib.Path(__file__).parent
def build_wheel(folder, config_settings=None, metadata_directory=None):
    (here / "begun.new").write_text(str(os.getpid()))
    (here / "begun.new").rename(here / "begun")
    time.sleep(600)
"""
PYPROJECT = "[build-system]\nrequires = []\nbuild-backend = 'slow'\nbackend-path = ['.']\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("dependencies")
    wheel(project / "wheels", "tiny")
    write(project, "functions/plain.py", HANDLER)
    write(project, "functions/uses/index.py", USES)
    write(project, "functions/uses/requirements.txt", requirements(project / "wheels", "tiny"))
    for name in ("broken", "mended"):
        write(project, f"functions/{name}/{name}.py", HANDLER)
        write(project, f"functions/{name}/requirements.txt", requirements(project / "wheels", "not-there"))
    write(project, "functions/told/told.py", HANDLER.replace("WORD", "SECRET"))
    write(project, ".env", DOTENV)
    return project


def write(project: Path, file: str, text: str) -> Path:
    path = project / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def up(project: Path) -> Iterator[Up]:
    with leaving_nothing() as ups:
        ups.append(Up(project, "--port", "0", "--slots", "3", "--function-environment", "WORD"))
        yield ups[0]


@pytest.fixture(scope="module")
def client(up: Up) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=up.ready(), timeout=60) as client:
        yield client


def call(client: httpx.Client, name: str) -> tuple[int, str]:
    answer = client.post(f"/.netlify/functions/{name}")
    return answer.status_code, answer.text


def becomes(client: httpx.Client, name: str, text: str, status: int = 200) -> None:
    """Wait until every runner answers so: several answers in a row do."""

    def so() -> bool:
        answers = [call(client, name) for _ in range(6)]
        return all(code == status and text in said for code, said in answers)

    eventually_sync(so, deadline_s=60, what=f"{name} answers {status} with {text!r}")


def test_a_failed_install_is_shown_and_the_others_are_served(client: httpx.Client, up: Up) -> None:
    error = client.get("/v1/functions/broken").json()["error"]
    assert error.startswith("functions/broken/requirements.txt could not be installed: uv ended with")
    assert "not-there was not found" in error
    status, text = call(client, "broken")
    assert status == 500
    assert "not-there was not found" in text
    assert call(client, "plain")[0] == 200
    assert client.get("/v1/functions/uses").json()["error"] is None
    log = up.log.read_text()
    assert log.index("installing_dependencies") < log.index("runner_started")
    installed = [line for line in log.splitlines() if "dependencies_installed" in line and "/uses/" in line]
    assert len(installed) == 1, "two runners install once"
    assert list((up.folder / ".quarterhour" / "cache" / "python").glob("*/.quarterhour"))


def test_a_function_runs_with_what_it_lists(client: httpx.Client) -> None:
    assert call(client, "uses") == (200, "1.0")


def test_the_repair_is_served_when_it_is_saved(client: httpx.Client, project: Path) -> None:
    write(project, "functions/mended/requirements.txt", requirements(project / "wheels", "tiny"))
    becomes(client, "mended", "project")
    write(project, "functions/mended/requirements.txt", requirements(project / "wheels", "never-there"))
    becomes(client, "mended", "never-there was not found", status=500)


def test_everything_is_served_on_while_something_is_installed(client: httpx.Client, project: Path) -> None:
    for file, text in (("slow.py", BACKEND), ("pyproject.toml", PYPROJECT)):
        write(project, f"slow/{file}", text)
    write(project, "functions/late/late.py", HANDLER)
    becomes(client, "late", "project")
    write(project, "functions/late/requirements.txt", f"{project / 'slow'}\n")
    eventually_sync((project / "slow" / "begun").exists, deadline_s=60, what="the install has begun")
    assert call(client, "late")[0] == 200, "it stays what it was"
    write(project, "functions/plain.py", HANDLER.replace('"body": ', '"body": "new " + '))
    becomes(client, "plain", "new project")
    write(project, "functions/plain.py", HANDLER)
    (project / "functions" / "late" / "requirements.txt").unlink()
    write(project, "functions/late/late.py", HANDLER.replace('"body": ', '"body": "free " + '))
    becomes(client, "late", "free project")


def test_dotenv_is_live_and_secret_and_no_setting(client: httpx.Client, project: Path, up: Up) -> None:
    becomes(client, "told", "open sesame1")
    assert '"slots":3' in up.log.read_text(), "a .env is not read for settings"
    write(project, ".env", DOTENV.replace("open", "close"))
    becomes(client, "told", "close sesame")
    write(project, "functions/told/.env", "SECRET=own sesame")
    becomes(client, "told", "own sesame")
    told = client.get("/v1/functions").text + up.log.read_text()
    assert ".env, line 4, is no variable" in told
    assert "hunter2" not in told
    assert "sesame" not in told


def test_up_ends_at_once_in_the_middle_of_an_install(tmp_path: Path) -> None:
    for file, text in (("slow.py", BACKEND), ("pyproject.toml", PYPROJECT)):
        write(tmp_path, f"functions/late/slow/{file}", text)
    write(tmp_path, "functions/late/late.py", HANDLER)
    write(tmp_path, "functions/late/requirements.txt", "./slow\n")
    begun = tmp_path / "functions" / "late" / "slow" / "begun"
    with leaving_nothing() as ups:
        ups.append(Up(tmp_path, "--port", "0", "--runners", "1"))
        eventually_sync(begun.exists, deadline_s=60, what="the install has begun")
        family = ups[0].family()
        assert int(begun.read_text()) in family
        ups[0].process.send_signal(signal.SIGTERM)
        assert ups[0].wait(30) == 0
        eventually_sync(lambda: not living(family), what="nothing is left")

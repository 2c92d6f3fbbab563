"""`quarterhour up`, as its users have it: a process that starts others, seen from outside."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from quarterhour.cli.main import main
from tests.up import Up, leaving_nothing, living
from tests.waiting import eventually_sync, whole_lines

PATIENCE_S = 30.0
HELLO = """
def handler(event, context):
    return {"statusCode": 200, "body": "Hello!"}
"""
NOTE_BACKGROUND = """
import pathlib

def handler(event, context):
    with open(event["body"], "a") as file:
        file.write("ran\\n")
"""
SLEEP_BACKGROUND = """
import subprocess, time

def handler(event, context):
    with open(event["body"], "a") as file:
        file.write("ran\\n")
    subprocess.Popen(["sleep", "600"])
    time.sleep(600)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with functions; nothing that runs in it is left when the test is over."""
    functions = tmp_path / "functions"
    functions.mkdir()
    (functions / "hello.py").write_text(HELLO)
    (functions / "note-background.py").write_text(NOTE_BACKGROUND)
    return tmp_path


@pytest.fixture
def started() -> Iterator[list[Up]]:
    with leaving_nothing() as ups:
        yield ups


def start(project: Path, started: list[Up], *arguments: str) -> Up:
    up = Up(project, "--port", "0", *arguments)
    started.append(up)
    return up


def refusal(project: Path, *arguments: str) -> str:
    """The sentence with which `up` refuses to start."""
    result = subprocess.run(
        [sys.executable, "-P", "-m", "quarterhour", "up", *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def enqueue(url: str, body: Path, function: str = "note-background") -> str:
    response = httpx.post(
        f"{url}/.netlify/functions/{function}",
        content=str(body),
        headers={"content-type": "text/plain"},
        timeout=PATIENCE_S,
    )
    assert response.status_code == 202, response.text
    return response.headers["x-nf-request-id"]


def ran(file: Path) -> int:
    return len(whole_lines(file))


def family_that_sleeps(up: Up) -> dict[int, str]:
    """The family, with what the function starts after it has noted that it runs."""
    eventually_sync(lambda: up.kin("sleep 600"), what="the function has started its own")
    return up.family()


def test_when_it_says_ready_both_kinds_of_function_can_be_called(project: Path, started: list[Up]) -> None:
    (project / "functions" / "broken.py").write_text("def handler(:")
    up = start(project, started)
    url = up.ready()
    assert httpx.post(f"{url}/.netlify/functions/hello", timeout=PATIENCE_S).text == "Hello!"
    enqueue(url, project / "noted")
    eventually_sync(lambda: ran(project / "noted") == 1)
    lines = up.output.read_text().splitlines()
    assert lines[0] == "3 functions in functions/:"
    assert (
        f"    curl -i -H 'content-type: application/json' -d '{{}}' {url}/.netlify/functions/hello" in lines
    )
    broken = lines.index("  broken  (synchronous)")
    assert lines[broken + 1].startswith("    cannot run: ")
    assert lines[-1] == f"ready {url}"


def test_list_invoke_and_status_speak_to_it(project: Path, started: list[Up]) -> None:
    functions = project / "functions"
    (functions / "double-background.py").write_text(
        "import json\ndef handler(event, context): return 2 * json.loads(event['body'])['n']"
    )
    (functions / "fail-background.py").write_text(
        "config = {'retries': 0}\n"
        "def handler(event, context):\n"
        "    print('on my way')\n"
        "    raise KeyError('why')\n"
    )
    url = start(project, started, "--runners", "1").ready()

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, [*arguments, "--url", url])

    assert "double-background  background   /.netlify/functions/double-background" in run("list").stdout
    assert run("invoke", "hello").stdout == "Hello!\n"
    assert run("invoke", "double-background", "--data", '{"n": 21}', "--wait").stdout == "42\n"
    failed = run("invoke", "fail-background", "--wait")
    assert failed.exit_code == 1
    assert "state        dead" in failed.stdout
    assert "error        KeyError: 'why'" in failed.stdout
    identity = failed.stdout.split()[1]
    status = run("status", identity)
    assert (status.exit_code, status.stdout) == (1, failed.stdout)
    assert "raise KeyError('why')" in status.stdout
    assert "on my way" in status.stdout.partition("It printed:")[2]


def test_every_process_says_what_it_is_and_shows_no_password(project: Path, started: list[Up]) -> None:
    up = start(project, started, "--runners", "3")
    up.ready()
    assert len(up.kin("quarterhour gateway")) == 1
    assert len(up.kin("quarterhour runner")) == 3
    (nats,) = up.kin("nats-server ")
    # That its configuration holds no password is test_cli_nats_server.py's to show.
    assert b"nats://" not in Path(f"/proc/{nats}/environ").read_bytes()
    assert "nats://" not in "\n".join(up.family().values())
    assert "nats://" not in up.log.read_text()
    assert (project / ".quarterhour/nats/nats-server.conf").stat().st_mode & 0o777 == 0o600


def test_sigterm_ends_everything_and_what_was_accepted_stays(project: Path, started: list[Up]) -> None:
    up = start(project, started)
    url = up.ready()
    invocation = enqueue(url, project / "noted")
    eventually_sync(lambda: ran(project / "noted") == 1)
    family = up.family()
    up.process.terminate()
    assert up.wait(30) == 0
    assert living(family) == {}
    assert "process_ended" not in up.log.read_text()
    assert "killing" not in up.log.read_text()
    (project / "functions" / "hello.py").unlink()
    url = start(project, started).ready()

    def known() -> list[str]:
        functions = httpx.get(f"{url}/v1/functions", timeout=PATIENCE_S).json()["functions"]
        return [function["name"] for function in functions]

    # What the gateway knew from before, it knows until it has heard that the file is gone.
    eventually_sync(lambda: known() == ["note-background"], what="just what has a file is known")
    status = httpx.get(f"{url}/v1/invocations/{invocation}", timeout=PATIENCE_S).json()
    assert status["state"] == "succeeded"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_other_signals_end_it_too(project: Path, started: list[Up], number: signal.Signals) -> None:
    up = start(project, started)
    up.ready()
    family = up.family()
    up.process.send_signal(number)
    assert up.wait(30) == 0
    assert living(family) == {}


def test_a_signal_while_it_starts_ends_it(project: Path, started: list[Up]) -> None:
    up = start(project, started)
    eventually_sync(lambda: up.kin("quarterhour runner"), what="it began to start")
    family = up.family()
    up.process.terminate()
    assert up.wait(30) == 0
    assert living(family) == {}


def test_sigkill_leaves_nothing_behind_and_loses_nothing(project: Path, started: list[Up]) -> None:
    (project / "functions" / "sleep-background.py").write_text(SLEEP_BACKGROUND)
    up = start(project, started, "--lease", "2")
    url = up.ready()
    enqueue(url, project / "slept", "sleep-background")
    eventually_sync(lambda: ran(project / "slept") == 1)
    family = family_that_sleeps(up)
    up.process.kill()
    up.wait()
    eventually_sync(lambda: living(family) == {}, what="everything ended")
    before = ran(project / "slept")  # more than once if its runner stood still for longer than the lease
    start(project, started, "--lease", "2").ready()
    eventually_sync(lambda: ran(project / "slept") > before, what="it ran again")


def test_a_second_signal_ends_it_at_once(project: Path, started: list[Up]) -> None:
    (project / "functions" / "sleep-background.py").write_text(SLEEP_BACKGROUND)
    up = start(project, started)
    url = up.ready()
    enqueue(url, project / "slept", "sleep-background")
    eventually_sync(lambda: ran(project / "slept") == 1)
    family = family_that_sleeps(up)
    up.process.terminate()
    eventually_sync(lambda: "draining" in up.log.read_text())
    up.process.terminate()
    up.wait(30)
    eventually_sync(lambda: living(family) == {}, what="everything ended")


def test_the_drain_time_is_kept_and_the_rest_runs_again_at_no_cost(project: Path, started: list[Up]) -> None:
    (project / "functions" / "sleep-background.py").write_text(SLEEP_BACKGROUND)
    up = start(project, started, "--drain", "6", "--lease", "3")
    url = up.ready()
    invocation = enqueue(url, project / "slept", "sleep-background")
    eventually_sync(lambda: ran(project / "slept") == 1)
    family = family_that_sleeps(up)
    up.process.terminate()
    assert up.wait(40) == 0
    assert living(family) == {}
    assert "killing" not in up.log.read_text()
    before = ran(project / "slept")  # as above
    url = start(project, started, "--lease", "3").ready()
    eventually_sync(lambda: ran(project / "slept") > before, what="it ran again")

    def running() -> dict[str, Any] | None:
        answer = httpx.get(f"{url}/v1/invocations/{invocation}", timeout=PATIENCE_S)
        status: dict[str, Any] = answer.json()
        return status if status.get("state") == "running" else None

    status = eventually_sync(running, what="it says that it runs")
    assert status is not None
    assert (status["attempt"], status["attempts"]) == (1, [])


@pytest.mark.parametrize("words", ["quarterhour gateway", "quarterhour runner", "nats-server "])
def test_a_killed_child_is_started_again(project: Path, started: list[Up], words: str) -> None:
    up = start(project, started, "--runners", "1")
    url = up.ready()
    (child,) = up.kin(words)
    os.kill(child, signal.SIGKILL)
    eventually_sync(lambda: up.kin(words) not in ([], [child]), what="it was started again")
    ended = [json.loads(line) for line in whole_lines(up.log) if '"process_ended"' in line]
    assert [line["why"] for line in ended] == ["killed by SIGKILL"]

    def works() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.post(f"{url}/.netlify/functions/hello", timeout=PATIENCE_S).text == "Hello!"
        return False

    eventually_sync(works, what="functions could be called again")


def test_a_second_up_on_the_same_data_is_refused(project: Path, started: list[Up]) -> None:
    up = start(project, started)
    eventually_sync((project / ".quarterhour/nats").exists)
    text = refusal(project, "--port", "0")
    assert text.startswith(
        f"Error: Another `quarterhour up` (process {up.process.pid}) uses the data directory"
    )


def test_a_port_in_use_is_refused(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refusal(project, "--port", str(port)).startswith(f"Error: Port {port} on 127.0.0.1 is in use")
    assert not (project / ".quarterhour/nats").exists()


def test_a_data_directory_that_cannot_be_written_is_refused(project: Path) -> None:
    (project / "file").write_text("")
    text = refusal(project, "--port", "0", "--data-dir", "file/data")
    assert text.startswith(f"Error: The data directory {project / 'file/data'} cannot be written (")


def test_a_missing_functions_folder_is_refused(project: Path) -> None:
    text = refusal(project, "--port", "0", "--functions", "no-such-folder")
    assert text.startswith(f"Error: There is no folder {project / 'no-such-folder'} with functions")
    assert not (project / ".quarterhour").exists()


def test_a_process_that_never_works_ends_it(project: Path) -> None:
    up = Up(project, "--port", "0", "--broker", "nosuch://there")
    assert up.wait(60) == 1
    last = up.log.read_text().splitlines()[-1]
    assert re.fullmatch(
        r"Error: (gateway|runner .) ended 3 times in a row \(exit status 1\); its log .*", last
    )
    assert "known are" in up.log.read_text()


def test_a_bad_setting_is_refused(project: Path) -> None:
    (project / "netlify.toml").write_text("[quarterhour]\nrunners = 1000")
    text = refusal(project)
    assert text == (
        f"Error: {project / 'netlify.toml'}: [quarterhour] runners is 1000, "
        "but must be a whole number from 1 to 64.\n"
    )


def test_of_a_thousand_keys_none_is_too_many_and_one_more_is_refused(
    project: Path, started: list[Up]
) -> None:
    lines = [f"sha256:{number:064x} read" for number in range(1001)]
    (project / "quarterhour.toml").write_text(f"[quarterhour]\napi-keys = {lines}\n")
    text = refusal(project)
    assert text.startswith("Error: There are 1001 API keys, ")
    assert "; 1000 are allowed, " in text
    (project / "quarterhour.toml").write_text(f"[quarterhour]\napi-keys = {lines[1:]}\n")
    start(project, started, "--runners", "1").ready()


def test_without_keys_it_lets_no_other_machine_in(project: Path) -> None:
    text = refusal(project, "--host", "0.0.0.0")
    assert text.startswith("Error: --host 0.0.0.0 lets other machines in, and there are no API keys: ")
    assert not (project / ".quarterhour").exists()


def test_an_empty_folder_says_how_to_begin(project: Path, started: list[Up]) -> None:
    for file in (project / "functions").iterdir():
        file.unlink()
    up = start(project, started, "--runners", "1")
    up.ready()
    assert up.output.read_text().startswith("There is no function in functions/ yet. Write the first one")


def test_all_addresses_are_shown_as_one_that_works(project: Path, started: list[Up]) -> None:
    url = start(project, started, "--host", "0.0.0.0", "--allow-anonymous", "--runners", "1").ready()
    assert url.startswith("http://127.0.0.1:")
    assert httpx.get(f"{url}/healthz", timeout=PATIENCE_S).status_code == 200

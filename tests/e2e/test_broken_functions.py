"""Functions that are wrong in themselves: each says why, wherever one meets it, and harms no other."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.system import REPOSITORY, System

pytestmark = pytest.mark.asyncio(loop_scope="module")

FINE = "\ndef handler(event, context): return {'statusCode': 200, 'body': 'fine'}\n"
FUNCTIONS = {
    "fine": FINE,
    "fine-background": FINE,
    "syntax": "def handler(event, context:\n    pass\n",
    "syntax-background": "config = {'retries': 5}\ndef handler(event, context:\n    pass\n",
    "value": 'config = {"timeout": "soon"}' + FINE,
    "key": 'config = {"timout": 3}' + FINE,
    "computed": "import os\nconfig = {'timeout': os.cpu_count()}" + FINE,
    "toml": FINE,
    "toml-background": FINE,
    "null": "x = '\0'\n",
}
TOML = """
[functions."toml"]
memory = "lots"
[functions."toml-background"]
retries = -1
[functions."fine"]
environment = { GREETING = "hello" }
"""
# For each: everything that its error has to name.
BROKEN: dict[str, tuple[str, ...]] = {
    "syntax": ("functions/syntax.py", "line 1"),
    "syntax-background": ("functions/syntax-background.py", "line 2"),
    "value": ("functions/value.py: config: timeout", "'soon'", "must be a number of seconds above 0"),
    "key": ("functions/key.py: config: 'timout'", "timeout, retries"),
    "computed": ("functions/computed.py", "config", "line 2"),
    "toml": (
        'quarterhour.toml: [functions."toml"]: memory',
        "'lots'",
        "must be a whole number of MiB from 64",
    ),
    "toml-background": ('quarterhour.toml: [functions."toml-background"]: retries', "-1", "from 0 to 100"),
    "null": ("functions/null.py",),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with System(tmp_path_factory.mktemp("broken"), FUNCTIONS) as system:
        (system.folder / "quarterhour.toml").write_text(TOML)
        await system.start_gateway()
        await system.start_runner()
        yield system


async def listed(system: System, name: str) -> dict[str, Any]:
    functions: list[dict[str, Any]] = (await system.get("/v1/functions")).json()["functions"]
    (found,) = [function for function in functions if function["name"] == name]
    return found


@pytest.mark.parametrize("name", BROKEN)
async def test_it_is_listed_with_its_error(system: System, name: str) -> None:
    error = (await listed(system, name))["error"]
    assert all(part in error for part in BROKEN[name]), error
    assert "\n" not in error


@pytest.mark.parametrize("name", [name for name in BROKEN if not name.endswith("-background")])
async def test_it_answers_500_with_its_error(system: System, name: str) -> None:
    answer = await system.post(name)
    assert answer.status_code == 500
    assert answer.json()["errorType"] == "FunctionError"
    assert answer.json()["errorMessage"] == (await listed(system, name))["error"]


@pytest.mark.parametrize("name", [name for name in BROKEN if name.endswith("-background")])
async def test_in_the_background_it_is_accepted_and_then_a_dead_letter(system: System, name: str) -> None:
    status = await system.in_state(await system.enqueue(name), "dead")
    assert (status["reason"], status["attempt"], status["outcome"]) == ("failed", 1, "failed")
    assert status["error"]["type"] == "FunctionError"
    assert status["error"]["message"] == (await listed(system, name))["error"]


async def test_the_others_run(system: System) -> None:
    assert (await listed(system, "fine"))["error"] is None
    assert (await system.post("fine")).text == "fine"
    await system.in_state(await system.enqueue("fine-background"), "succeeded")


REFUSED = {
    "no TOML": ("this is [no TOML", ("quarterhour.toml", "line 1")),
    "an unknown key": ("[quarterhour]\nslotz = 3", ("quarterhour.toml: [quarterhour] slotz", "slots")),
    "a bad value": (
        "[quarterhour]\nslots = 0",
        ("quarterhour.toml: [quarterhour] slots is 0", "from 1 to 1024"),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_file_that_leaves_everything_in_doubt_ends_the_runner(case: str, tmp_path: Path) -> None:
    text, parts = REFUSED[case]
    (tmp_path / "functions").mkdir()
    (tmp_path / "quarterhour.toml").write_text(text)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "quarterhour", "runner", "--broker", "nats://127.0.0.1:1"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert all(part in done.stderr for part in parts), done.stderr
    assert len(done.stderr.splitlines()) == 1

"""A further runtime is a folder under runner/sandbox/ and nothing else: here is one for shell scripts."""

import asyncio
import shutil
import textwrap
from pathlib import Path

import runner
from tests.system import System
from tests.waiting import eventually

RUNTIME = '''
"""Shell scripts as functions: what they print is the response, their exit status 0 is success."""

import sys
from pathlib import Path

from runner.sandbox.runtime import Launch


class Shell:
    name = "shell"
    suffixes = (".sh",)
    listing = "packages.txt"

    def read_config(self, source):
        return {"timeout": 7} if b"# slow" in source else None

    def install(self, listing, cache, *, python):
        return None

    def launch(self, *, installed, memory_mib):
        return Launch(command=(sys.executable, str(Path(__file__).with_name("worker.py"))))


RUNTIME = Shell()
'''

WORKER = """
import json, os, struct, subprocess

def exactly(size):
    data = b""
    while len(data) < size:
        part = os.read(3, size - len(data))
        if not part:
            raise SystemExit
        data += part
    return data

def read():
    length, limit_at = struct.unpack("!Id", exactly(12))
    data = exactly(length - 8)
    end = 4 + int.from_bytes(data[:4], "big")
    return json.loads(data[4:end]), data[end:]

def write(header, body=b""):
    text = json.dumps(header).encode()
    os.write(3, struct.pack("!II", 4 + len(text) + len(body), len(text)) + text + body)

served, source = read()
while True:
    header, body = read()
    done = subprocess.run(["sh", "-c", source], input=body, stdout=subprocess.PIPE)
    if done.returncode == 0:
        write({"kind": "returned", "shape": "object", "statusCode": 200, "body": "text"}, done.stdout)
    else:
        error = {"type": "ExitStatus", "message": str(done.returncode), "trace": []}
        write({"kind": "raised", "error": error, "retry": True})
"""


def add_a_runtime(folder: Path) -> None:
    """A copy of the runner, which the processes of a test find first, with one folder more."""
    shutil.copytree(
        Path(runner.__file__).parent, folder / "runner", ignore=shutil.ignore_patterns("__pycache__")
    )
    shell = folder / "runner" / "sandbox" / "shell"
    shell.mkdir()
    (shell / "__init__.py").touch()
    (shell / "runtime.py").write_text(RUNTIME)
    (shell / "worker.py").write_text(textwrap.dedent(WORKER))


async def test_a_folder_is_all_that_a_runtime_takes(tmp_path: Path) -> None:
    await asyncio.to_thread(add_a_runtime, tmp_path)
    async with System(tmp_path, {}) as system:
        (system.functions / "shout.sh").write_text("echo it shouts >&2; tr a-z A-Z")
        (system.functions / "fails-background.sh").write_text("exit 3 # slow")
        await system.start_gateway()
        runner_process = await system.start_runner()
        answer = await system.post("shout", content=b"hello")
        assert (answer.status_code, answer.text) == (200, "HELLO")
        await eventually(lambda: runner_process.facts("function_output"), what="its output was logged")
        (line,) = runner_process.facts("function_output")
        assert (line["function"], line["stream"], line["text"]) == ("shout", "stderr", "it shouts")
        identity = await system.enqueue("fails-background")
        status = await system.in_state(identity, "retrying")
        assert status["error"]["type"] == "ExitStatus"
        listed = (await system.get("/v1/functions/fails-background")).json()
        assert (listed["runtime"], listed["timeout_s"]) == ("shell", 7)

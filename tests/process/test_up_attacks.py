"""What a function of `up` may try against the broker and the processes around it, and what comes of it."""

import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.process.other_users import USER
from tests.up import Up, children, leaving_nothing

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="it looks around in /proc"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give processes another group"),
]

SPY = """
import json, os, socket, urllib.parse
from pathlib import Path

def read(path):
    try:
        with path.open("rb") as file:
            return file.read(16 << 20)
    except OSError:
        return b""

def places(folder):
    yield from (path for path in Path("/proc").glob("[0-9]*/environ"))
    yield from (path for path in Path("/proc").glob("[0-9]*/cmdline"))
    yield from (path for path in Path(folder).rglob("*") if path.is_file())

def without_credentials(port):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as nats:
        nats.sendall(b'CONNECT {"verbose":true}\\r\\nSUB > 1\\r\\nPING\\r\\n')
        said = b""
        while part := nats.recv(4096):
            said += part
            if b"-ERR" in said or b"PONG" in said:
                break
        return said.partition(b"\\r\\n")[2].decode()

def handler(event, context):
    asked = json.loads(event["body"])
    seen = {str(path): read(path) for path in places(asked["folder"])}
    return {"statusCode": 200, "body": json.dumps({
        "found": [path for path, data in seen.items() if asked["secret"].encode() in data],
        "read": [path for path, data in seen.items() if data],
        "nats": without_credentials(asked["port"]),
    })}
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A whole system; its processes have a group of their own, which shows what of them is hidden."""
    project = tmp_path_factory.mktemp("project")
    (project / "functions").mkdir()
    (project / "functions" / "spy.py").write_text(SPY)
    with pytest.MonkeyPatch.context() as patch, leaving_nothing() as ups:
        patch.setattr(subprocess, "Popen", functools.partial(subprocess.Popen, group=USER))
        up = Up(project, "--port", "0", "--runners", "1")
        patch.undo()
        ups.append(up)
        up.ready()
        yield up


def broker_of(up: Up) -> str:
    (runner,) = up.kin("quarterhour runner")
    variables = Path(f"/proc/{runner}/environ").read_bytes().split(b"\0")
    (url,) = (each for each in variables if each.startswith(b"QUARTERHOUR_BROKER="))
    return url.decode()


def test_a_function_finds_no_credentials_and_the_broker_takes_nothing_without(up: Up) -> None:
    found = re.search(r"//[^:@/]+:([^@]+)@127\.0\.0\.1:([0-9]+)", broker_of(up))
    assert found is not None
    asked = {"secret": found[1], "port": int(found[2]), "folder": str(up.folder)}
    answer = httpx.post(f"{up.ready()}/.netlify/functions/spy", json=asked, timeout=60)
    assert answer.status_code == 200, answer.text
    seen = json.loads(answer.text)
    assert seen["found"] == []
    assert any(path.endswith("nats-server.conf") for path in seen["read"]), "root's functions read files"
    assert any(path.endswith("cmdline") for path in seen["read"])
    assert seen["nats"].startswith("-ERR 'Authorization Violation'")


def test_no_process_of_the_same_user_can_look_into_those_that_know_a_password(up: Up) -> None:
    def owner(pid: int) -> int:
        return Path(f"/proc/{pid}/environ").stat().st_gid  # root's, if it is hidden

    (gateway,), (runner,) = up.kin("quarterhour gateway"), up.kin("quarterhour runner")
    # What is forked from the guard is called like it, and may end at any time.
    (guard,) = children(runner, "quarterhour guard")
    assert [owner(pid) for pid in (up.process.pid, gateway, runner, guard)] == [0] * 4
    (nats,) = up.kin("nats-server ")
    assert owner(nats) == USER, "it is not ours to hide: then this test could tell"


def test_the_operator_is_told_what_is_missing(up: Up) -> None:
    assert "name a user for them with --function-user" in up.log.read_text()

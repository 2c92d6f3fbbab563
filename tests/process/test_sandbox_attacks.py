"""What a function may try against the runner, its guard and other functions, and what comes of it.

Each attack is made by root's functions, by those of an ordinary user, and by those that have a user each.
"""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quarterhour.users import Users
from runner.protection import CALLS_FILTERED
from runner.sandbox.job import Code
from runner.sandbox.pool import SandboxSettings
from runner.sandbox.runtimes import RUNTIMES
from tests.node import node
from tests.process.other_users import USER, python_as, python_for
from tests.process.sandboxes import Bench, alive, open_bench, settings
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these are bars that Linux has")

needs_filter = pytest.mark.skipif(not CALLS_FILTERED, reason="no system calls are filtered here")

ROOT, ORDINARY, EACH = "as root", "as an ordinary user", "a user each"

# Runs what it is given, with what can be tried at hand.
ATTACKER = """
import base64, ctypes, json, os, platform, resource, signal, socket, struct, sys, tempfile
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)

class Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

def tried(attack, *arguments):
    try:
        return repr(attack(*arguments))
    except OSError as error:
        return f"refused: {error.strerror}"

def call(function, *arguments):
    result = function(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def read_memory(pid):
    piece = Piece(id(libc), 16), Piece(id(libc), 16)
    return call(libc.process_vm_readv, pid, ctypes.byref(piece[0]), 1, ctypes.byref(piece[1]), 1, 0)

def take_descriptor(pid):
    return call(libc.syscall, 438, os.pidfd_open(pid), 0, 0)  # pidfd_getfd

def spied(pid):
    proc = Path(f"/proc/{pid}")
    return {
        "environ": tried((proc / "environ").read_bytes),
        "maps": tried((proc / "maps").read_bytes),
        "mem": tried(open, proc / "mem"),
        "fd": tried(os.readlink, proc / "fd/1"),
        "cwd": tried(os.readlink, proc / "cwd"),
        "ptrace": tried(call, libc.ptrace, 16, pid, 0, 0),
        "process_vm_readv": tried(read_memory, pid),
        "pidfd_getfd": tried(take_descriptor, pid),
        "signal": tried(os.kill, pid, 0),
    }

def changed(pid):
    numbers = {"x86_64": (314, 251), "aarch64": (274, 30)}[platform.machine()]
    priority = struct.pack("IIQiIQQQ", 48, os.SCHED_BATCH, 0, 5, 0, 0, 0, 0)
    processor = {min(os.sched_getaffinity(0))}
    return {
        "prlimit": tried(resource.prlimit, pid, resource.RLIMIT_CORE, (0, 0)),
        "setpriority": tried(os.setpriority, os.PRIO_PROCESS, pid, 5),
        "sched_setaffinity": tried(os.sched_setaffinity, pid, processor),
        "sched_setscheduler": tried(os.sched_setscheduler, pid, os.SCHED_BATCH, os.sched_param(0)),
        "sched_setparam": tried(os.sched_setparam, pid, os.sched_param(0)),
        "sched_setattr": tried(call, libc.syscall, numbers[0], pid, priority, 0),
        "ioprio_set": tried(call, libc.syscall, numbers[1], 1, pid, 2 << 13 | 7),
    }

def handler(event, context):
    return {"statusCode": 200, "body": json.dumps(eval(base64.b64decode(event["body"])))}
"""


def settings_for(who: str, folder: Path) -> SandboxSettings:
    """A sandbox as it is under a runner of this kind."""
    if who == ORDINARY:
        return settings(python=str(python_as(USER, folder)))
    if who == EACH:
        return replace(settings(python=str(python_for(USER))), users=Users(first=USER, last=USER + 99))
    return settings()


@pytest.fixture(params=[ROOT, ORDINARY, EACH])
async def attacked(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path, settings_for(request.param, tmp_path)) as bench:
        yield bench


async def attack(bench: Bench, expression: str, code: Code | None = None) -> Any:
    """What an expression is worth to the attacker."""
    code = code or bench.function(ATTACKER, name="attacker")
    return json.loads(await bench.text(code, body=expression.encode()))


async def victim(bench: Bench, expression: str = "os.getpid()", **options: Any) -> Any:
    """What an expression is worth in the worker of another function, which goes on living."""
    return await attack(bench, expression, bench.function(ATTACKER, **options))


def on_its_own_program() -> Any:
    node()
    return RUNTIMES["node"].launch(installed=None, memory_mib=512)


async def test_no_other_process_can_be_looked_into_or_signalled(attacked: Bench) -> None:
    another = await victim(attacked)
    spare = attacked.function(
        "exports.handler = async () => ({ statusCode: 200, body: String(process.pid) })",
        suffix=".js",
        launch=on_its_own_program(),
    )
    program = int(await attacked.text(spare))
    for pid in (os.getpid(), attacked.guard_pid, another, program):
        found = await attack(attacked, f"spied({pid})")
        assert all(what.startswith("refused") for what in found.values()), found
    own = await attack(attacked, "spied(os.getpid())")
    del own["ptrace"]
    assert not [what for what in own.values() if what.startswith("refused")], own


@needs_filter
async def test_limits_and_priorities_of_other_processes_cannot_be_set(attacked: Bench) -> None:
    another = await victim(attacked)
    for pid in (os.getpid(), attacked.guard_pid, another):
        found = await attack(attacked, f"changed({pid})")
        assert all(what.startswith("refused") for what in found.values()), found
    found = await attack(
        attacked,
        "[tried(os.setpriority, os.PRIO_USER, 0, 5), tried(os.setpriority, os.PRIO_PGRP, os.getpgid(0), 5),"
        " tried(call, libc.syscall, 251 if platform.machine() == 'x86_64' else 30, 3, 0, 2 << 13 | 7)]",
    )
    assert all(what.startswith("refused") for what in found), "a whole user's"
    own = await attack(attacked, "changed(0)")
    assert not [what for what in own.values() if what.startswith("refused")], own


async def test_javascript_is_barred_as_well(attacked: Bench) -> None:
    source = """
        const { readFileSync, readlinkSync } = require('node:fs');
        function tried(attack) {
            try { return String(attack()); } catch (error) { return `refused: ${error.code}`; }
        }
        exports.handler = async (event) => {
            const pid = Buffer.from(event.body, 'base64').toString();
            const proc = `/proc/${pid}`;
            return { statusCode: 200, body: JSON.stringify([
                tried(() => readFileSync(`${proc}/environ`)), tried(() => readFileSync(`${proc}/maps`)),
                tried(() => readlinkSync(`${proc}/fd/1`)), tried(() => process.kill(Number(pid), 0)),
                %s
            ]) };
        };
        """
    more = "tried(() => require('node:os').setPriority(Number(pid), 5))," if CALLS_FILTERED else ""
    code = attacked.function(source % more, suffix=".js", launch=on_its_own_program())
    for pid in (os.getpid(), attacked.guard_pid, await victim(attacked)):
        found = json.loads(await attacked.text(code, body=str(pid).encode()))
        assert all(what.startswith("refused") for what in found), found


async def test_no_rights_can_be_gained_and_limits_are_set(attacked: Bench) -> None:
    status = "Path('/proc/self/status').read_text().splitlines()"
    limits = "Path('/proc/self/limits').read_text().splitlines()"
    shown = """
        const { readFileSync } = require('node:fs');
        exports.handler = async () => ({ statusCode: 200, body: readFileSync('/proc/self/%s', 'utf8') });
        """
    launch = on_its_own_program()
    for lines in (
        await attack(attacked, f"{status} + {limits}"),
        [
            line
            for name in ("status", "limits")
            for line in (
                await attacked.text(attacked.function(shown % name, suffix=".js", launch=launch))
            ).splitlines()
        ],
    ):
        facts = {" ".join(line.split()[:3]): line.split() for line in lines}
        assert facts["NoNewPrivs: 1"]
        assert facts["Max core file"][-3:-1] == ["0", "0"]
        assert int(facts["Max open files"][-2]) <= 4096
        assert int(facts["Max file size"][-2]) <= 10 * 1024**3
        kept = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff"))
        assert not kept & (1 << 21 | 1 << 19 | 1 << 38), "neither CAP_SYS_ADMIN nor _PTRACE nor _PERFMON"
        if attacked.sandbox.settings.users:
            assert facts["Max processes 512"][-3:-1] == ["512", "512"]


SEARCH = """
import re

def secrets_in_memory():
    found = set()
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        for line in Path("/proc/self/maps").read_text().splitlines():
            start, end = (int(each, 16) for each in line.split()[0].split("-"))
            try:
                memory.seek(start)
                found.update(re.findall(rb"(?:another|own)-[0-9a-f]{16}", memory.read(end - start)))
            except (OSError, OverflowError):  # a piece of it that cannot be read
                continue
    return sorted(each.decode() for each in found)
"""


async def test_the_environment_of_another_function_is_nowhere_in_its_memory(attacked: Bench) -> None:
    another, own = (f"{whose}-{os.urandom(8).hex()}" for whose in ("another", "own"))
    assert await victim(attacked, "os.environ['SECRET']", environment=(("SECRET", another),)) == another
    searcher = attacked.function(ATTACKER + SEARCH, environment=(("SECRET", own),))
    assert await attack(attacked, "secrets_in_memory()", searcher) == [own]


async def test_an_abstract_socket_of_another_function_cannot_be_reached(attacked: Bench) -> None:
    listen = "[s := socket.socket(socket.AF_UNIX), s.bind('\\0victim'), s.listen(), vars(sys).update(s=s)][1]"
    await victim(attacked, listen)
    connect = "tried(socket.socket(socket.AF_UNIX).connect, '\\0victim')"
    assert (await attack(attacked, connect)).startswith("refused")


async def test_temporary_folders_of_other_functions_are_closed_where_each_has_a_user(tmp_path: Path) -> None:
    async with open_bench(tmp_path, settings_for(EACH, tmp_path)) as bench:
        folder = Path(await victim(bench, "tempfile.gettempdir()"))
        assert await victim(bench, "os.listdir(tempfile.gettempdir())") == []
        (folder / "secret").write_text("x")
        (folder / "secret").chmod(0o666)
        for what in ("os.listdir, %r", "open, %r + '/secret'", "os.listdir, os.path.dirname(%r)"):
            found = await attack(bench, f"tried({what % str(folder)})")
            assert found.startswith("refused"), found


async def test_each_worker_is_its_own_user(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.write_text("the operator's")
    private.chmod(0o600)
    who = (
        "[os.getresuid(), os.getresgid(), os.getgroups(), sorted(os.environ),"
        f" os.environ['HOME'] == os.environ['TMPDIR'], tried(open, {str(private)!r}),"
        " tried(open, '/dev/stdout', 'w')]"
    )
    async with open_bench(tmp_path, settings_for(EACH, tmp_path)) as bench:
        seen = [await victim(bench, who) for _ in range(2)]
    for user, group, groups, names, home, opened, stdout in seen:
        assert len(set(user)) == len(set(group)) == 1
        assert USER <= user[0] == group[0] < USER + 100
        assert groups == []
        assert names == ["HOME", "PATH", "TMPDIR", "TZ"]
        assert home
        assert opened.startswith("refused")
        assert not stdout.startswith("refused")
    assert seen[0][0] != seen[1][0]


async def test_one_user_for_all_functions(tmp_path: Path) -> None:
    using = replace(settings(python=str(python_for(USER))), users=Users(first=USER, last=USER))
    async with open_bench(tmp_path, using) as bench:
        assert await victim(bench, "os.getresuid()") == [USER] * 3
        another = await victim(bench)
        found = await attack(bench, f"spied({another})")
        assert all(what.startswith("refused") for what in found.values()), found


async def test_a_worker_is_killed_with_its_guard_whoever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "killpg", lambda *_: None)  # as if the runner were gone as well
    async with open_bench(tmp_path, settings_for(EACH, tmp_path)) as bench:
        pid = await victim(bench)
        os.kill(bench.guard_pid, signal.SIGKILL)
        await eventually(lambda: not alive(pid), what="the worker was gone")

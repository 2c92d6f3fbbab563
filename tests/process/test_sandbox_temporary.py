"""Temporary folders: whatever a function makes of its own, nothing of it is left and nothing else is hurt."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from runner.sandbox.guarding import temporary
from runner.sandbox.job import AttemptLost
from tests.process.other_users import USER, python_as, python_for
from tests.process.sandboxes import open_bench, response, settings
from tests.waiting import eventually

WAITING = """
    import os, signal
    def handler(event, context):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        print("waiting", os.getpid(), flush=True)
        signal.sigwait({signal.SIGUSR1})
        return {"statusCode": 200}
    """

# Folders within folders, unreadable ones, links to what is somebody else's, a name that is no text.
MESS = """
    import os
    def handler(event, context):
        top = os.environ["TMPDIR"]  # and never what `tempfile` takes if that is not there
        os.chdir(top)
        for _ in range(25):  # longer than any path may be
            os.mkdir("deeper" * 40)
            os.chdir("deeper" * 40)
        os.chdir(top)
        os.mkdir("closed")
        open("closed/file", "w").close()
        os.symlink("/", "root")
        os.symlink(%r, "closed/outside")
        os.link("closed/file", b"closed/\\xff")
        os.mkfifo("pipe")
        os.chmod("closed", 0)
        os.chmod(top, 0o500)
        return {"statusCode": 200, "body": top}
    """


@pytest.mark.parametrize("who", ["as this user", "as an ordinary user"])
async def test_nothing_is_left_of_a_mess_and_nothing_else_is_touched(tmp_path: Path, who: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    python = sys.executable if who == "as this user" else str(python_as(USER, tmp_path))
    async with open_bench(tmp_path, settings(python=python)) as bench:
        folder = Path(await bench.text(MESS % str(outside)))
        base = folder.parent
        assert base.name.startswith(temporary.PREFIX)
    await eventually(lambda: not base.exists(), what="the folder of all folders was gone")
    assert (outside / "kept").exists()


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_what_killed_guards_leave_is_removed_by_the_next_one(tmp_path: Path) -> None:
    source = """
        import os, tempfile
        def handler(event, context):
            open(os.path.join(tempfile.gettempdir(), "file"), "w").close()
            return {"statusCode": 200, "body": tempfile.gettempdir()}
        """
    async with open_bench(tmp_path) as bench:
        left = Path(await bench.text(source)).parent
        os.kill(bench.guard_pid, signal.SIGKILL)
        async with open_bench(tmp_path) as other:
            used = Path(await other.text(source))
            await eventually(lambda: not left.exists(), what="what was left was gone")
            async with open_bench(tmp_path):
                pass
            temporary.remove_leftovers()  # as that guard has begun to do, which may have ended before
            assert names_in(used) == ["file"], "what is in use stayed"


def test_what_is_somebody_elses_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python_for(USER)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    foreign = tmp_path / f"{temporary.PREFIX}foreign"
    foreign.mkdir()
    os.chown(foreign, USER, USER)
    linked = tmp_path / f"{temporary.PREFIX}linked"
    target = tmp_path / "target"
    (target / "inner").mkdir(parents=True)
    linked.symlink_to(target)
    own = tmp_path / f"{temporary.PREFIX}own"
    (own / "inner").mkdir(parents=True)
    (own / "link").symlink_to(target)
    (own / "file").touch()
    temporary.remove_leftovers()
    assert foreign.exists()
    assert linked.is_symlink()
    assert (target / "inner").exists()
    assert not own.exists()


@pytest.mark.parametrize("who", ["as this user", "as an ordinary user"])
@pytest.mark.parametrize(
    "puts", ["os.symlink('/nonexistent', top)", "os.symlink(%r, top)", "open(top, 'w').close()", "pass"]
)
async def test_what_is_put_in_the_place_of_the_folder_hurts_nobody(
    tmp_path: Path, who: str, puts: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    python = sys.executable
    if who == "as an ordinary user":
        python = str(python_as(USER, tmp_path))
        os.chown(outside, USER, USER)
    outside.chmod(0o755)
    before = outside.stat()
    source = f"""
        import os
        from pathlib import Path
        def handler(event, context):
            top = os.environ["TMPDIR"]
            print("base", Path(top).parent, flush=True)
            os.rmdir(top)
            {puts.replace("%r", repr(str(outside)))}
            os._exit(0)
        """
    async with open_bench(tmp_path, settings(python=python)) as bench:
        guard = bench.guard_pid
        neighbour = asyncio.create_task(bench.run(WAITING))
        waiting = await bench.printed_pid("waiting")
        await bench.run(source)
        os.kill(waiting, signal.SIGUSR1)
        assert response(await neighbour).status == 200
        assert bench.guard_pid == guard
        base = Path((await bench.printed("base")).text.removeprefix("base "))
    await eventually(lambda: not base.exists(), what="the folder of all folders was gone")
    after = outside.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


@pytest.mark.parametrize("does", ["shutil.rmtree(base)", "os.chmod(base, 0)"])
@pytest.mark.parametrize("who", ["as this user", "as an ordinary user"])
async def test_the_folder_of_all_folders_is_made_again(tmp_path: Path, who: str, does: str) -> None:
    source = f"""
        import os, shutil
        def handler(event, context):
            base = os.path.dirname(os.environ["TMPDIR"])
            {does}
            return {{"statusCode": 200}}
        """
    python = sys.executable if who == "as this user" else str(python_as(USER, tmp_path))
    async with open_bench(tmp_path, settings(python=python)) as bench:
        guard = bench.guard_pid
        await bench.run(source)
        folder = await bench.text(
            """
            import os
            def handler(event, context):
                open(os.path.join(os.environ["TMPDIR"], "file"), "w").close()
                return {"statusCode": 200, "body": os.environ["TMPDIR"]}
            """
        )
        assert bench.guard_pid == guard
    await eventually(lambda: not Path(folder).parent.exists(), what="the folder of all folders was gone")


# Sets how many processes the user of another process may have; the user itself may do that.
LIMITING = """
import resource, sys
pid, processes_max = map(int, sys.argv[1:])
hard = resource.prlimit(pid, resource.RLIMIT_NPROC)[1]
resource.prlimit(pid, resource.RLIMIT_NPROC, (hard if processes_max < 0 else processes_max, hard))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux sets limits of other processes")
async def test_where_no_process_can_be_forked_only_the_new_worker_is_lost(tmp_path: Path) -> None:
    filled = """
        import os
        def handler(event, context):
            open(os.path.join(os.environ["TMPDIR"], "file"), "w").close()
            return {"statusCode": 200, "body": f"{os.getpid()} {os.environ['TMPDIR']}"}
        """
    program, user = Path(sys.executable), None
    if os.geteuid() == 0:  # who has no such limit
        program, user = python_for(USER), USER

    def limit(processes_max: int) -> None:
        command = [str(program), "-I", "-c", LIMITING, str(bench.guard_pid), str(processes_max)]
        subprocess.run(command, user=user, group=user, check=True)

    python = str(program) if user is None else str(python_as(user, tmp_path))
    async with open_bench(tmp_path, settings(python=python)) as bench:
        guard = bench.guard_pid
        neighbour = asyncio.create_task(bench.run(WAITING))
        waiting = await bench.printed_pid("waiting")
        pid, folder = (await bench.text(filled)).split()
        limit(0)
        with pytest.raises(AttemptLost) as lost:
            await bench.run(filled)
        assert lost.value.reason == "guard"
        os.kill(int(pid), signal.SIGKILL)  # now its folder cannot be removed either
        await eventually(lambda: not Path(f"/proc/{pid}").exists(), what="its end was seen")
        limit(-1)
        assert response(await bench.run(filled)).status == 200
        os.kill(waiting, signal.SIGUSR1)
        assert response(await neighbour).status == 200
        assert bench.guard_pid == guard
    async with open_bench(tmp_path, settings(python=python)):
        await eventually(lambda: not Path(folder).parent.exists(), what="what was left was gone")


def test_folders_of_others_do_not_keep_leftovers_from_being_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python_for(USER)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(temporary, "LEFTOVERS_MAX", 1)
    for number in range(50):
        foreign = tmp_path / f"{temporary.PREFIX}{number}"
        foreign.mkdir()
        os.chown(foreign, USER, USER)
    own = tmp_path / f"{temporary.PREFIX}own"
    own.mkdir()
    temporary.remove_leftovers()
    assert not own.exists()


def test_a_folder_that_is_taken_for_a_leftover_at_once_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    opened: list[str] = []

    def open_too_late(path: str, *arguments: Any) -> int:
        if not opened:
            os.rmdir(path)  # noqa: PTH106 - as another guard does it
        opened.append(path)
        return really_open(path, *arguments)

    really_open = os.open
    monkeypatch.setattr(os, "open", open_too_late)
    made = temporary.Temporary()
    assert opened[0] != made.base
    assert Path(made.base).is_dir()
    made.close()


SWEEPING = """
import socket, sys, time, types
sys.path.insert(0, sys.argv[1])
import zygote
guard = types.SimpleNamespace(control=socket.socket(), sweepers=set())
zygote.Guard.sweep(guard, lambda: time.sleep(40))
print(len(guard.sweepers))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux a process ends with its parent")
def test_who_removes_folders_ends_with_the_guard() -> None:
    folder = Path("runner/sandbox/guarding").absolute()
    done = subprocess.run(
        [sys.executable, "-c", SWEEPING, folder], stdout=subprocess.PIPE, timeout=20, check=True
    )  # returns when nobody has its standard output any more
    assert done.stdout == b"1\n"

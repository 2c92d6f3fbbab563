"""Temporary folders: whatever a function makes of its own, nothing of it is left and nothing else is hurt."""

import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from runner.sandbox.guarding import temporary
from tests.process.other_users import USER, python_as, python_for
from tests.process.sandboxes import open_bench, settings
from tests.waiting import eventually

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
            await eventually(used.is_dir, what="what is in use stayed")


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
    temporary.remove_leftovers()
    assert foreign.exists()
    assert linked.is_symlink()
    assert (target / "inner").exists()
    assert not own.exists()

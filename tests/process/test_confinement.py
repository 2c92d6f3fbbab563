"""The bars themselves, as far as this kernel's newest do not stand for the older ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runner.sandbox.guarding.confinement import REFER_SINCE, SCOPES_SINCE, landlock_version

# An older Landlock has to be about files; it must not be felt.
INSIDE = """
import json, os, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import confinement
version = int(sys.argv[2])
confinement.landlock_version = lambda: version
keep = confinement.Confinement()
if os.geteuid() == 0:  # who has more rights cannot be looked into either
    confinement.keep_capabilities(confinement.KEPT_CAPABILITIES)
reading, writing = os.pipe()
outside = os.fork()
if outside == 0:
    os.close(writing)
    os.read(reading, 1)  # until the other one ends
    os._exit(0)
keep.enter(None, pipes=())
def refused(attempt):
    try:
        attempt()
    except OSError:
        return True
    return False
first, second = tempfile.mkdtemp(dir=sys.argv[3]), tempfile.mkdtemp(dir=sys.argv[3])
Path(first, "file").touch()
os.rename(Path(first, "file"), Path(second, "file"))
spying = refused(lambda: os.readlink(f"/proc/{outside}/cwd"))
signalling = refused(lambda: os.kill(outside, 0))
print(json.dumps([spying, signalling, os.listdir(second)]))
"""


@pytest.mark.parametrize("version", [0, REFER_SINCE, SCOPES_SINCE])
def test_each_landlock_bars_what_it_can_and_nothing_else(tmp_path: Path, version: int) -> None:
    if landlock_version() < version:
        pytest.skip(f"this kernel's Landlock is older than version {version}")
    folder = Path("runner/sandbox/guarding").absolute()
    done = subprocess.run(
        [sys.executable, "-c", INSIDE, folder, str(version), tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    spying, signalling, files = json.loads(done.stdout)
    assert spying is (version >= REFER_SINCE)
    assert signalling is (version >= SCOPES_SINCE)
    assert files == ["file"]

"""The bars themselves, as far as this kernel's newest do not stand for the older ones."""

import errno
import json
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runner.sandbox.guarding.confinement import REFER_SINCE, SCOPES_SINCE, call_filter, landlock_version

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


# Each call is made by a process of its own: a kernel may also know nothing of it, and kill who makes it.
OTHER_NUMBERS = """
import ctypes, json, mmap, os, sys
sys.path.insert(0, sys.argv[1])
import confinement
libc = ctypes.CDLL(None, use_errno=True)
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("b814000000 cd80 c3"))  # eax = 20, getpid of i386; int 0x80
at = ctypes.addressof(ctypes.c_char.from_buffer(code))
def x32():
    return libc.syscall(0x40000000 + 39) < 0 and ctypes.get_errno()  # getpid
def i386():
    return -ctypes.CFUNCTYPE(ctypes.c_int)(at)()
def status(call):
    pid = os.fork()
    if pid == 0:
        os._exit(call())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
confinement.prctl(confinement.PR_SET_NO_NEW_PRIVS, 1)
confinement.call_filter().enter()
print(json.dumps([status(x32), status(i386)]))
"""


@pytest.mark.skipif(
    platform.machine() != "x86_64" or call_filter() is None, reason="only x86_64 has other numbers for calls"
)
def test_no_call_gets_past_the_filter_under_another_number() -> None:
    folder = Path("runner/sandbox/guarding").absolute()
    done = subprocess.run(
        [sys.executable, "-c", OTHER_NUMBERS, folder], capture_output=True, text=True, check=True
    )
    x32, i386 = json.loads(done.stdout)
    assert x32 == errno.EPERM
    assert i386 in {errno.EPERM, -signal.SIGSEGV}

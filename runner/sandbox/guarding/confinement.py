"""What a worker is held to before any user code runs in it: limits, its user, and the bars that Linux has.

Standard library only: it runs under the interpreter of the functions. It decides nothing: which user and
how many processes is the runner's to say.

The bars: no program can give the worker more rights than it has (`no_new_privs`); as root it keeps no more of
root's capabilities than a container has by default; it has a Landlock domain of its own, from which
nothing outside can be traced, and with that neither memory, environment nor descriptors of it be read, nor be
sent a signal, nor an abstract socket be reached; and a filter of system calls forbids to set limits and
priorities of any process but oneself, which Landlock does not know. Landlock's rules for files are not used.
"""

import ctypes
import errno
import os
import resource
import struct
import sys
from collections.abc import Iterable

__all__ = ["Confinement", "call_filter", "prctl"]

LINUX = sys.platform == "linux"
GIB = 1024 * 1024 * 1024
DESCRIPTORS_MAX = (1024, 4096)  # what a process may have open; it may raise the first up to the second
FILE_BYTES_MAX = 10 * GIB  # as large as the temporary folder of a Lambda can be

PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38

# The same numbers on all of Linux's processors but one that is no more.
SYS_LANDLOCK_CREATE_RULESET = 444
SYS_LANDLOCK_ADD_RULE = 445
SYS_LANDLOCK_RESTRICT_SELF = 446
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1
LANDLOCK_ACCESS_FS_REFER = 1 << 13
LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0
LANDLOCK_SCOPE_SIGNAL = 1 << 1
SCOPES_SINCE = 6  # versions of Landlock: Linux 6.12
REFER_SINCE = 2  # Linux 5.19

CAPABILITY_VERSION = 0x20080522
# chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot,
# mknod, audit_write, setfcap: what a container's root has by default.
KEPT_CAPABILITIES = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31))

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1 << 2  # or older kernels would make every worker slower; Linux 4.17
ALLOW = 0x7FFF0000
JUMP_IF_EQUAL = 0x15
JUMP_IF_NOT_LESS = 0x35
REFUSE = 0x00050000 | errno.EPERM
X32_BIT = 0x40000000  # marks the second numbering that x86_64 has; no number elsewhere is as large
# What a call that is about a process says first where it is about the one that makes it.
OWN = (0,)
OWN_PRIORITY = (0, 0)  # PRIO_PROCESS
OWN_IO_PRIORITY = (1, 0)  # IOPRIO_WHO_PROCESS
# By machine: what the kernel calls it, its seccomp, and its prlimit64, sched_setparam, sched_setscheduler,
# sched_setaffinity, sched_setattr, setpriority and ioprio_set.
CALLS = {
    "x86_64": (
        0xC000003E,
        317,
        {302: OWN, 142: OWN, 144: OWN, 203: OWN, 314: OWN, 141: OWN_PRIORITY, 251: OWN_IO_PRIORITY},
    ),
    "aarch64": (
        0xC00000B7,
        277,
        {261: OWN, 118: OWN, 119: OWN, 122: OWN, 274: OWN, 140: OWN_PRIORITY, 30: OWN_IO_PRIORITY},
    ),
}

_libc = ctypes.CDLL(None, use_errno=True) if LINUX else None


class Confinement:
    """What is prepared once, in the guard, and entered by each worker."""

    def __init__(self) -> None:
        self.landlock = landlock_version()  # 0: there is none that would do
        self._ruleset = make_ruleset(self.landlock)
        self._filter = call_filter()

    def limit(self, *, processes_max: int | None) -> None:
        """Bound what the worker may use. `processes_max`: of its user, threads included."""
        lower(resource.RLIMIT_CORE, 0, 0)  # core files could fill a disk
        lower(resource.RLIMIT_NOFILE, *DESCRIPTORS_MAX)
        lower(resource.RLIMIT_FSIZE, FILE_BYTES_MAX, FILE_BYTES_MAX)
        if processes_max is not None:
            lower(resource.RLIMIT_NPROC, processes_max, processes_max)

    def enter(self, user: tuple[int, int] | None, *, pipes: Iterable[int]) -> None:
        """Become `user` (user and group id; None: stay who it is) and close the bars. Raises `OSError`.

        `pipes` are those that the worker prints to.
        """
        if user is not None:
            uid, gid = user
            for pipe in pipes:  # so that /dev/stdout can be opened
                os.fchown(pipe, uid, gid)
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        if _libc is None:
            return
        if os.geteuid() == 0:
            keep_capabilities(KEPT_CAPABILITIES)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        if self._ruleset is not None:
            check(_syscall(SYS_LANDLOCK_RESTRICT_SELF, self._ruleset, 0))
        if self._filter is not None:
            self._filter.enter()
        if self._ruleset is not None or user is not None:
            # Where it is off, as in the guard, a process can't read its own /proc/self/environ.
            prctl(PR_SET_DUMPABLE, 1)


def prctl(option: int, value: int) -> None:
    """Ask Linux; elsewhere there is nothing like it. Raises `OSError`."""
    if _libc is not None:
        check(_libc.prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))))


def lower(kind: int, soft: int, hard: int) -> None:
    """Set a limit, unless it is lower already."""
    was = resource.getrlimit(kind)[1]
    if was != resource.RLIM_INFINITY:
        soft, hard = min(soft, was), min(hard, was)
    resource.setrlimit(kind, (soft, hard))


def keep_capabilities(kept: int) -> None:
    """Give up all capabilities but these. With `no_new_privs` no program gets them back. Raises `OSError`."""
    assert _libc is not None  # noqa: S101 - for mypy: only called on Linux
    header = struct.pack("Ii", CAPABILITY_VERSION, 0)
    sets = ctypes.create_string_buffer(
        24
    )  # effective, permitted, inheritable: 32 bits of each, and the next 32
    check(_libc.capget(header, sets))
    masks = (kept & 0xFFFFFFFF,) * 3 + (kept >> 32,) * 3
    held = struct.unpack("6I", sets.raw)
    check(_libc.capset(header, struct.pack("6I", *(a & b for a, b in zip(held, masks, strict=True)))))


def landlock_version() -> int:
    """Which Landlock there is; 0 for none, or one that would forbid to move files between folders."""
    if _libc is None:
        return 0
    version = _syscall(SYS_LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    return version if version >= REFER_SINCE else 0


def make_ruleset(version: int) -> int | None:
    """A ruleset that forbids nothing beyond what every domain forbids: a descriptor, closed by `exec`."""
    if version == 0:
        return None
    if version >= SCOPES_SINCE:
        scopes = LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL
        return _create_ruleset(struct.pack("QQQ", 0, 0, scopes))
    # It has to be about something: moving files between folders, which it allows everywhere.
    ruleset = _create_ruleset(struct.pack("Q", LANDLOCK_ACCESS_FS_REFER))
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", LANDLOCK_ACCESS_FS_REFER, root)
        check(_syscall(SYS_LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0))
    finally:
        os.close(root)
    return ruleset


class CallFilter:
    """A program for seccomp: the calls that change a process are refused where they are about another one.

    It cannot know who is whose, so that a worker's own processes and threads count as others, too. Calls in
    the manner of another machine, which have other numbers, are all refused.
    """

    def __init__(self, machine: str) -> None:
        arch, self._seccomp, calls = CALLS[machine]
        program = [*_require(4, arch), _load(0), _jump(JUMP_IF_NOT_LESS, X32_BIT, 0, 1), _return(REFUSE)]
        for number, own in calls.items():
            checks = [step for index, value in enumerate(own) for step in _require(16 + 8 * index, value)]
            program += [_jump(JUMP_IF_EQUAL, number, 0, len(checks) + 1), *checks, _return(ALLOW)]
        program.append(_return(ALLOW))
        self._program = ctypes.create_string_buffer(b"".join(program))
        self._described = struct.pack("HP", len(program), ctypes.addressof(self._program))

    def enter(self) -> None:
        """Be held to it from now on, with all that is started. Raises `OSError`."""
        check(self._call(self._described))

    def is_known(self) -> bool:
        """Whether the kernel would take it: it tells by what it says about none."""
        return self._call(None) < 0 and ctypes.get_errno() == errno.EFAULT

    def _call(self, described: bytes | None) -> int:
        return _syscall(self._seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, described)


def call_filter() -> CallFilter | None:
    """The filter of this machine's system calls; None where it, or its kernel, is not one that we know."""
    machine = os.uname().machine
    if _libc is None or machine not in CALLS or sys.maxsize < 1 << 32:  # a small Python on a large machine
        return None
    found = CallFilter(machine)
    return found if found.is_known() else None


def _load(offset: int) -> bytes:
    """Look at 32 bits: at 0 is the call's number, at 4 the machine, from 16 arguments of 8 bytes each."""
    return struct.pack("HBBI", 0x20, 0, 0, offset)


def _jump(code: int, value: int, then: int, otherwise: int) -> bytes:
    """Compare what was looked at, and leave out so many steps."""
    return struct.pack("HBBI", code, then, otherwise, value)


def _return(verdict: int) -> bytes:
    return struct.pack("HBBI", 0x06, 0, 0, verdict)


def _require(offset: int, value: int) -> list[bytes]:
    return [_load(offset), _jump(JUMP_IF_EQUAL, value, 1, 0), _return(REFUSE)]


def check(result: int) -> int:
    """What a function of C returned. Raises `OSError` if that is -1."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _create_ruleset(attributes: bytes) -> int:
    return check(_syscall(SYS_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0))


def _syscall(*arguments: int | bytes | None) -> int:
    assert _libc is not None  # noqa: S101 - for mypy: only called on Linux
    longs = (ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)
    result: int = _libc.syscall(*longs)
    return result

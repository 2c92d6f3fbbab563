"""The guard of one interpreter's workers, and the zygote that they are forked from.

Standard library only: it runs under the interpreter of the functions. It forks workers when the
runner asks, ends them at the moments that the table says, reaps them and tells the runner how each
ended. When the runner is gone (the control socket closes) it kills everything and ends. It never
runs user code itself: a worker does, in a process and session of its own.

    python -I zygote.py CONTROL_FD TABLE_FD ROWS PACKAGE_FOLDER

Messages are lines of JSON. From the runner: `{"op": "spawn", "worker", "row", "user", "processes_max",
"memory_mib", "command"}` with three descriptors (channel, stdout, stderr), and `{"op": "kill",
"worker"}`. To the runner: `{"ready", "landlock"}` once, then `{"worker", "pid"}` and `{"worker", "status",
"killed"}`, which comes alone for one that could not be forked. A worker with a `command` becomes that
program; one without is Python, forked from here.

A worker's environment comes on its own channel, before anything else: what stood in this process's memory
could be found by every worker that is forked from it later.
"""

import array
import gc
import importlib.util
import json
import mmap
import os
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

TICK_S = 0.05
IDLE_TICK_S = 0.25
TERM_S = 1.0  # between SIGTERM and SIGKILL
LEASE_MARGIN_S = 0.5  # an attempt is dead when its lease ends, not about to be killed
BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LINUX = sys.platform == "linux"
MIB = 1024 * 1024
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def load(name: str, path: Path, *, package: bool = False) -> ModuleType:
    """Load a module by its place, without putting any folder on the module path."""
    folders = [str(path.parent)] if package else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=folders)
    if spec is None or spec.loader is None:
        message = f"{path} cannot be loaded."
        raise ImportError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


HERE = Path(__file__).parent
confinement = load("_quarterhour_confinement", HERE / "confinement.py")
temporary = load("_quarterhour_temporary", HERE / "temporary.py")
prctl = confinement.prctl


class Worker:
    """One forked child: `killed` says why it is being ended, `kill_at` when SIGKILL follows SIGTERM.

    `memory_bytes_max` is what the guard has to watch: None where the worker limits itself.
    """

    __slots__ = ("kill_at", "killed", "memory_bytes_max", "number", "pid", "row", "temporary")

    def __init__(self, number: int, pid: int, row: int, temporary: str, memory_bytes_max: int | None) -> None:
        self.number = number
        self.pid = pid
        self.row = row
        self.temporary = temporary
        self.memory_bytes_max = memory_bytes_max
        self.killed: str | None = None
        self.kill_at = 0.0


class Guard:
    """The loop: spawn, watch the table, reap."""

    def __init__(self, control: socket.socket, table: mmap.mmap, worker_module: ModuleType) -> None:
        self.control = control
        self.table = table
        self.moments = memoryview(table).cast("d")
        self.worker_module = worker_module
        self.workers: dict[int, Worker] = {}  # by pid
        self.sweepers: set[int] = set()  # children that remove temporary folders
        self.confinement = confinement.Confinement()
        self.temporary = temporary.Temporary()
        self.inbox = b""
        self.outbox = b""
        self.descriptors: list[int] = []
        self.wakeup, wakeup_end = os.pipe()
        for end in (self.wakeup, wakeup_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def run(self) -> None:
        """Until the runner is gone."""
        self.tell({"ready": True, "landlock": self.confinement.landlock})
        self.sweep(temporary.remove_leftovers)
        while True:
            wait_s = self.enforce(time.clock_gettime(BOOT_CLOCK))
            control = self.control.fileno()
            sending = [control] if self.outbox else []
            ready, _, _ = select.select([control, self.wakeup], sending, [], wait_s)
            if self.wakeup in ready:
                os.read(self.wakeup, 4096)
            self.reap()
            self.send()
            if control in ready and not self.receive():
                break
        self.end()

    def enforce(self, now: float) -> float | None:
        """End what is past its moment; seconds until the table is to be looked at again."""
        if not self.workers:
            return None
        wait_s = IDLE_TICK_S
        for worker in self.workers.values():
            limit_at, leased_until = self.moments[2 * worker.row], self.moments[2 * worker.row + 1]
            if worker.kill_at and now >= worker.kill_at:
                self.kill(worker)
            elif leased_until and now >= leased_until - LEASE_MARGIN_S:
                worker.killed = worker.killed or "lease"
                self.kill(worker)
            elif (
                limit_at and worker.memory_bytes_max and resident_bytes(worker.pid) > worker.memory_bytes_max
            ):
                worker.killed = worker.killed or "memory"
                self.kill(worker)
            elif limit_at and now >= limit_at and not worker.kill_at:
                worker.killed = worker.killed or "limit"
                worker.kill_at = now + TERM_S
                signal_group(worker.pid, signal.SIGTERM)
            if limit_at or worker.kill_at:
                wait_s = min(wait_s, TICK_S, max(0.0, limit_at - now) if limit_at > now else TICK_S)
        return wait_s

    def kill(self, worker: Worker) -> None:
        """SIGKILL to the worker and its group; what escaped the group is found when it is reaped."""
        signal_group(worker.pid, signal.SIGKILL)
        # One that was only just forked leads no group yet; until it is reaped, its id is its own.
        try:
            os.kill(worker.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return

    def reap(self) -> None:
        """Take note of every child that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
            self.sweepers.discard(pid)
            worker = self.workers.pop(pid, None)
            if worker is not None:
                # The group may have outlived its leader.
                signal_group(pid, signal.SIGKILL)
                self.remove(worker.temporary)
                self.tell({"worker": worker.number, "status": status, "killed": worker.killed})
        self.kill_orphans()

    def kill_orphans(self) -> None:
        """Kill what dead workers left behind: as their subreaper, this process has become its parent.

        The orphans of living workers stay with them, since each worker is a subreaper as well.
        """
        if not LINUX:
            return
        try:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        except OSError:
            return
        for child in map(int, children):
            if child not in self.workers and child not in self.sweepers:
                try:
                    os.kill(child, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def receive(self) -> bool:
        """Take what the runner sent; False once it is gone."""
        size = array.array("i").itemsize
        try:
            data, ancillary, _, _ = self.control.recvmsg(65536, socket.CMSG_SPACE(48 * size))
        except OSError:
            return False
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(content[: len(content) - len(content) % size])
                self.descriptors += received
        if not data:
            return False
        *lines, self.inbox = (self.inbox + data).split(b"\n")
        for line in lines:
            self.obey(json.loads(line))
        return True

    def obey(self, message: dict[str, Any]) -> None:
        """Do what one message asks."""
        if message["op"] == "spawn":
            descriptors, self.descriptors = self.descriptors[:3], self.descriptors[3:]
            self.spawn(message, descriptors)
            return
        for worker in self.workers.values():
            if worker.number == message["worker"]:
                worker.killed = worker.killed or "asked"
                self.kill(worker)

    def spawn(self, message: dict[str, Any], descriptors: list[int]) -> None:
        """Fork a worker. That the machine has no room for one is this worker's misfortune alone."""
        try:
            folder = self.temporary.make(message["user"])
            pid = self.fork(message, descriptors, folder)
        except OSError as error:
            say(f"A worker cannot be started: {error.strerror}.")
            self.tell({"worker": message["worker"], "status": 0, "killed": "guard"})
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        # What Python's own limit does to a heap, it does not to one that is reserved in large pieces.
        memory_bytes_max = message["memory_mib"] * MIB if message["command"] else None
        self.workers[pid] = Worker(message["worker"], pid, message["row"], folder, memory_bytes_max)
        self.tell({"worker": message["worker"], "pid": pid})

    def fork(self, message: dict[str, Any], descriptors: list[int], folder: str) -> int:
        """The process that becomes the worker. Raises `OSError`, and then the folder is gone again."""
        guard = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            self.temporary.is_removed(folder)
            raise
        if pid == 0:
            try:
                self.become_worker(message, descriptors, folder, guard)
            except OSError as error:
                say(f"The worker cannot be confined: {error.strerror}.")
            finally:
                os._exit(70)  # whatever happened, a worker never returns into the guard's loop
        return pid

    def become_worker(self, message: dict[str, Any], descriptors: list[int], folder: str, guard: int) -> None:
        """In the child: leave everything of the guard behind, then serve."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # Left ignored, it would be ignored by every program that a function starts.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.moments.release()
        self.table.close()
        self.confinement.limit(processes_max=message["processes_max"])
        self.confinement.enter(message["user"], pipes=descriptors[1:])
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user has cleared it
        if os.getppid() != guard:
            os._exit(70)  # the guard died before it could be watched
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        arrange_descriptors(descriptors)
        os.environ.clear()
        # Another user's home is not the function's.
        os.environ.update({"HOME": folder} if message["user"] else {})
        os.environ.update(read_environment(3), TMPDIR=folder)
        tempfile.tempdir = None
        if message["command"]:
            become(message["command"])
        self.worker_module.main(channel=3)

    def tell(self, message: dict[str, Any]) -> None:
        """Tell the runner something."""
        self.outbox += json.dumps(message).encode() + b"\n"
        self.send()

    def send(self) -> None:
        """Send what the runner takes: one that is stopped must not keep the guard from its work."""
        while self.outbox:
            try:
                sent = self.control.send(self.outbox, socket.MSG_DONTWAIT)
            except OSError:  # it takes no more now, or is gone; then the loop ends by itself
                return
            self.outbox = self.outbox[sent:]

    def remove(self, folder: str) -> None:
        """Remove a worker's temporary folder; a full one in a process of its own, which takes its time."""
        if not self.temporary.is_removed(folder):
            self.sweep(lambda: temporary.remove_tree(folder))

    def sweep(self, work: Callable[[], None]) -> None:
        """Do something in a process of its own, which ends with this one: the next guard finds the rest."""
        guard = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            say(f"Temporary folders stay for now: {error.strerror}.")
            return
        if pid == 0:
            try:
                self.control.close()  # or the runner would not see the guard's end
                prctl(confinement.PR_SET_NO_NEW_PRIVS, 1)  # by which the runner knows what a guard has left
                prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() == guard:
                    work()
            finally:
                os._exit(0)
        self.sweepers.add(pid)

    def end(self) -> None:
        """Kill every worker and whatever they started."""
        signal.set_wakeup_fd(-1)
        ends_at = time.monotonic() + 5.0
        while time.monotonic() < ends_at:
            for worker in self.workers.values():
                self.kill(worker)
            self.reap()
            try:
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            except ChildProcessError:
                break
            time.sleep(0.005)
        self.temporary.close()


def say(sentence: str) -> None:
    """Say something to whoever reads standard error, if that can be written to."""
    with suppress(OSError):
        os.write(2, f"{sentence}\n".encode())


def read_environment(channel: int) -> dict[str, str]:
    """What the runner says first of all; the rest of the channel is the worker's."""
    size = int.from_bytes(read_exactly(channel, 4), "big")
    environment: dict[str, str] = json.loads(read_exactly(channel, size))
    return environment


def read_exactly(channel: int, size: int) -> bytes:
    """So many bytes; ends the process if the runner is gone."""
    data = b""
    while len(data) < size:
        part = os.read(channel, size - len(data))
        if not part:
            os._exit(70)
        data += part
    return data


def arrange_descriptors(descriptors: list[int]) -> None:
    """Make 0 the null device, 1 and 2 the pipes, 3 the channel, and close everything else."""
    channel, output, errors = descriptors
    null = os.open(os.devnull, os.O_RDONLY)
    # Out of the way first: one of them may stand where another is to go.
    high = [
        os.dup2(descriptor, 100 + index) for index, descriptor in enumerate((null, output, errors, channel))
    ]
    for target, descriptor in enumerate(high):
        os.dup2(descriptor, target, inheritable=target < 3)
    os.closerange(4, max(os.sysconf("SC_OPEN_MAX"), 1024))


def become(command: list[str]) -> None:
    """Turn this process into another program, which finds its channel where a forked worker has it."""
    os.set_inheritable(3, True)  # noqa: FBT003 - it takes no keyword
    try:
        os.execve(command[0], command, os.environ)  # noqa: S606 - no shell is what is wanted
    except OSError as error:
        say(f"{command[0]} cannot be started: {error.strerror}.")
        os._exit(127)


def resident_bytes(pid: int) -> int:
    """The memory that a process has now; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a worker's process group, whose leader it is; it may be gone already."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def main() -> None:
    """Load what every worker needs, then guard."""
    control_fd, table_fd, rows = map(int, sys.argv[1:4])
    package = Path(sys.argv[4])
    prctl(confinement.PR_SET_DUMPABLE, 0)  # no process of this user may look into it
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    table = mmap.mmap(table_fd, rows * 16)
    os.close(table_fd)
    load("quarterhour", package / "__init__.py", package=True)  # the authors' API, and nothing beside it
    worker_module = load("_quarterhour_worker", HERE.parent / "python" / "worker.py")
    gc.collect()
    gc.freeze()  # a collection in a worker then leaves the shared pages alone
    Guard(socket.socket(fileno=control_fd), table, worker_module).run()


if __name__ == "__main__":
    main()

"""What the processes of a test asked of the kernel, and in which order: strace's output, read. Pure.

A call has two moments, its beginning and its end, counted in lines: strace writes the beginning down
before the kernel acts on it, and the end after. So what ends before another begins, on paper, did so.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

__all__ = ["STRACE", "Call", "Journal", "calls", "read_journal"]

CALLS = "fsync,fdatasync,pwrite64,write,writev,sendto,sendmsg"
# Whole strings, in hexadecimal; names of files beside descriptors; no stop for any other call.
STRACE = (
    "-f",
    "-y",
    "-xx",
    "-s",
    "131072",
    "--seccomp-bpf",
    "-e",
    f"trace={CALLS}",
    "-e",
    "signal=none",
    "-o",
)

_BEGUN = re.compile(r"(\d+) +(\w+)\((\d+)<([^>]*)>(.*)")
_RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_RECORD_HEAD = 22  # length, sequence, time, length of the subject
_HAS_HEADERS = 1 << 31


@dataclass(slots=True, kw_only=True)
class Call:
    """One call. `file` is that of its descriptor, `data` what was written; `end` is None while it runs."""

    name: str
    file: str
    data: bytes
    begin: int
    end: int | None = None


def calls(lines: Iterable[str]) -> list[Call]:
    """The calls of a trace in the order of their beginnings."""
    found: list[Call] = []
    running: dict[str, Call] = {}
    for number, line in enumerate(lines):
        if (resumed := _RESUMED.match(line)) is not None:
            if (call := running.pop(resumed[1], None)) is not None:
                call.end = number
        elif (begun := _BEGUN.match(line)) is not None:
            pid, name, _, file, rest = begun.groups()
            data = b"".join(_bytes(text) for text in _STRING.findall(rest))
            call = Call(name=name, file=_bytes(file).decode(errors="replace"), data=data, begin=number)
            if rest.endswith("<unfinished ...>"):
                running[pid] = call
            else:
                call.end = number
            found.append(call)
    return found


def _bytes(text: str) -> bytes:
    """What strace has written in hexadecimal, as it does with names of files, too."""
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode()


@dataclass(slots=True)
class Journal:
    """What a NATS server stored in a stream, and what was said of it.

    `subjects` by sequence; `stored` the moments by sequence between which each was on its way to the
    disk: the end of its write, and of the first sync that began after that; `acknowledged` the moment
    in which the server began to say so, with how many it said it of; `answered` the 202s by invocation.
    """

    subjects: dict[int, str] = field(default_factory=dict)
    stored: dict[int, int] = field(default_factory=dict)
    acknowledged: dict[int, tuple[int, int]] = field(default_factory=dict)
    answered: dict[str, int] = field(default_factory=dict)

    def too_early(self) -> Iterator[str]:
        """Sentences about what was acknowledged, or answered, before it was on the disk."""
        for sequence, (moment, _) in self.acknowledged.items():
            if self.stored.get(sequence, moment) >= moment:
                yield f"{self.subjects.get(sequence)} was acknowledged before it was synced"
        for invocation, moment in self.answered.items():
            on_disk = [
                self.stored.get(each, moment) for each, name in self.subjects.items() if invocation in name
            ]
            if min(on_disk, default=moment) >= moment:
                yield f"{invocation} was answered before it was synced"


def read_journal(found: Iterable[Call], stream: str) -> Journal:
    """The journal of a stream, of a gateway's answers too."""
    journal = Journal()
    written: list[tuple[str, int, int]] = []  # file, sequence, the end of the write; not yet synced
    syncs = []
    for call in found:
        if call.end is not None and f"/streams/{stream}/msgs/" in call.file and call.file.endswith(".blk"):
            if call.name == "pwrite64":
                for sequence, subject in _records(call.data):
                    journal.subjects[sequence] = subject
                    written.append((call.file, sequence, call.end))
            else:
                syncs.append(call)
        elif call.name in {"write", "writev", "sendto", "sendmsg"}:
            _hear(journal, call, stream)
    for file, sequence, end in written:
        ends = [sync.end for sync in syncs if sync.file == file and sync.begin > end and sync.end is not None]
        if ends:
            journal.stored[sequence] = min(ends)
    return journal


def _records(data: bytes) -> Iterator[tuple[int, str]]:
    """Sequence and subject of the messages in a write to a block."""
    while len(data) > _RECORD_HEAD:
        length = int.from_bytes(data[:4], "little") & ~_HAS_HEADERS
        subject_length = int.from_bytes(data[20:22], "little")
        yield int.from_bytes(data[4:12], "little"), data[22 : 22 + subject_length].decode()
        data = data[length:]


def _hear(journal: Journal, call: Call, stream: str) -> None:
    """An acknowledgement of the server, or an answer of a gateway."""
    pattern = rf'\{{"stream":"{stream}",(?:"domain":"[^"]*",)?"seq":(\d+)(?:,"batch":"[^"]*","count":(\d+))?'
    for last, count in re.findall(pattern.encode(), call.data):
        for sequence in range(int(last) - int(count or 1) + 1, int(last) + 1):
            journal.acknowledged.setdefault(sequence, (call.begin, int(count or 1)))
    if call.data.startswith(b"HTTP/1.1 202"):
        (invocation,) = re.findall(rb"x-nf-request-id: ([0-9a-f-]{36})", call.data)
        journal.answered[invocation.decode()] = call.begin

"""The users that functions run as, where the runner is root: one for all of them, or one for each worker.

It reads the system's list of users and changes nothing.
"""

import functools
import os
import pwd
import re
from dataclasses import dataclass

from quarterhour.errors import SettingsError

__all__ = ["MORE_WORKERS", "UID_MAX", "Users", "check_users", "parse_users"]

MORE_WORKERS = 64  # of a runner beyond its slots: spare ones, and those that are being ended
UID_MAX = 2**32 - 2
PROCESSES_MAX = 512  # of a user who has one worker, threads included


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """The user ids from `first` to `last`."""

    first: int
    last: int

    def __str__(self) -> str:
        """As `parse_users` reads it."""
        return f"{self.first}" if self.is_one else f"{self.first}-{self.last}"

    @property
    def is_one(self) -> bool:
        """Whether all workers share one user."""
        return self.first == self.last

    @property
    def processes_max(self) -> int | None:
        """How many processes and threads each may have; None: no limit of ours, since they would share it."""
        return None if self.is_one else PROCESSES_MAX

    def of(self, row: int) -> tuple[int, int]:
        """The user and the group of the worker in this row of the table."""
        return (self.first, _group_of(self.first)) if self.is_one else (self.first + row, self.first + row)

    def share(self, number: int, runners: int) -> "Users":
        """Those of runner `number` (from 0) of so many on one machine: a range is divided."""
        if self.is_one:
            return self
        size = (self.last - self.first + 1) // runners
        return Users(first=self.first + number * size, last=self.first + (number + 1) * size - 1)


@functools.cache
def _group_of(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:  # a user needs no entry in the list
        return uid


def parse_users(text: str) -> Users:
    """`NAME`, `UID` or `UID-UID`. Raises `ValueError` for all else, root and unknown names too."""
    numbers = re.fullmatch(r"([0-9]{1,10})(?:-([0-9]{1,10}))?", text)
    if numbers is None:
        try:
            first = last = pwd.getpwnam(text).pw_uid
        except KeyError:
            raise ValueError from None
    else:
        first = int(numbers[1])
        last = int(numbers[2] or first)
    if not 0 < first <= last <= UID_MAX:
        raise ValueError
    return Users(first=first, last=last)


def check_users(users: Users | None, *, runners: int, slots: int) -> None:
    """Refuse users that this process cannot give to its workers. Raises `SettingsError`."""
    if users is None:
        return
    if os.geteuid() != 0:
        message = (
            f"--function-user needs a process that is started as root, and this one is user {os.geteuid()}; "
            "leave it out: functions then run as that user."
        )
        raise SettingsError(message)
    if users.of(0)[1] == 0:
        message = (
            f"--function-user {users} has root's group (0), and with it root's files; "
            "name a user of another group, or a range."
        )
        raise SettingsError(message)
    needed, given = runners * (slots + MORE_WORKERS), users.last - users.first + 1
    if not users.is_one and given < needed:
        message = (
            f"--function-user {users} is {given} users, but {needed} are needed so that each worker has its "
            f"own: {slots} slots and {MORE_WORKERS} more, of each runner. Give more, or one for all of them."
        )
        raise SettingsError(message)

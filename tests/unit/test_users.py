"""Who functions run as, and what is said about how well they are kept apart."""

import pwd
from pathlib import Path

import pytest

from quarterhour import users
from quarterhour.errors import SettingsError
from quarterhour.users import Users, check_users, parse_users
from runner.protection import check_readable, missing_protections
from tests.process.other_users import USER, python_for

RANGE = Users(first=200_000, last=200_159)


@pytest.mark.parametrize("users", [RANGE, Users(first=65_534, last=65_534)])
def test_users_are_read_as_they_are_written(users: Users) -> None:
    assert parse_users(str(users)) == users


def test_a_name_is_a_user() -> None:
    someone = next(each for each in pwd.getpwall() if each.pw_uid > 0)
    assert parse_users(someone.pw_name).of(7) == (someone.pw_uid, someone.pw_gid)


@pytest.mark.parametrize(
    "text", ["0", "root", "0-10", "10-9", "4294967295", "nobody-at-all", "", "-1", "1-2-3"]
)
def test_what_is_no_user_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the caller's sentence says what is allowed
        parse_users(text)


def test_of_a_range_each_worker_of_each_runner_has_its_own() -> None:
    shares = [RANGE.share(number, 2) for number in range(2)]
    ids = [share.of(row)[0] for share in shares for row in range(80)]
    assert len(set(ids)) == 160
    assert (min(ids), max(ids)) == (RANGE.first, RANGE.last)
    assert Users(first=9, last=9).share(1, 2) == Users(first=9, last=9)


def test_users_that_cannot_be_had_are_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users.os, "geteuid", lambda: 1000)  # type: ignore[attr-defined]
    with pytest.raises(
        SettingsError, match="needs a process that is started as root, and this one is user 1000"
    ):
        check_users(RANGE, runners=2, slots=16)
    check_users(None, runners=2, slots=16)
    monkeypatch.setattr(users.os, "geteuid", lambda: 0)  # type: ignore[attr-defined]
    check_users(RANGE, runners=2, slots=16)
    check_users(Users(first=9, last=9), runners=2, slots=16)
    with pytest.raises(SettingsError, match="is 160 users, but 162 are needed"):
        check_users(RANGE, runners=2, slots=17)


def test_a_user_of_roots_group_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users.os, "geteuid", lambda: 0)  # type: ignore[attr-defined]
    monkeypatch.setattr(users, "_group_of", lambda uid: 0 if uid == 9 else uid)
    with pytest.raises(SettingsError, match=r"--function-user 9 has root's group \(0\)"):
        check_users(Users(first=9, last=9), runners=1, slots=1)
    check_users(Users(first=8, last=8), runners=1, slots=1)


def test_files_that_functions_could_not_read_are_named(tmp_path: Path) -> None:
    python, them = python_for(USER), Users(first=USER, last=USER)
    folder = tmp_path / "functions"
    folder.mkdir()
    file = folder / "hello.py"
    file.touch()
    for parent in [tmp_path, *tmp_path.parents][:-2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    check_readable(them, python, folder, tmp_path / "none")
    file.chmod(0o600)
    with pytest.raises(SettingsError, match=f"{file} cannot be read by user {USER}"):
        check_readable(them, python, folder, tmp_path / "none")
    with pytest.raises(SettingsError, match="/bin/false cannot be read"):
        check_readable(them, Path("/bin/false"), folder, tmp_path / "none")


@pytest.mark.parametrize(
    ("them", "landlock", "filtered", "root", "words"),
    [
        (None, 7, True, False, []),
        (None, 7, True, True, ["--function-user"]),
        (None, 0, True, False, ["no Landlock"]),
        (None, 0, False, True, ["--function-user", "no Landlock", "limits and priorities"]),
        (None, 5, True, False, ["older than Linux 6.12: functions can signal processes of their user, and"]),
        (None, 7, False, False, ["limits and priorities"]),
        (Users(first=9, last=9), 0, False, True, ["no Landlock", "limits and priorities"]),
        (RANGE, 7, False, True, []),
        (RANGE, 5, False, True, ["abstract sockets"]),
        (RANGE, 0, False, True, ["abstract sockets"]),
    ],
)
def test_what_is_missing_is_said(
    them: Users | None, landlock: int, filtered: bool, root: bool, words: list[str]
) -> None:
    sentences = missing_protections(them, landlock=landlock, root=root, filtered=filtered)
    assert len(sentences) == len(words)
    assert all(word in sentence for word, sentence in zip(words, sentences, strict=True))

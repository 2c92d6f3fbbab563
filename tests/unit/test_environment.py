"""`.env` files: what is a variable, what is not, and that no value is ever shown."""

import os
from pathlib import Path

import pytest

from runner.environment import DOTENV_BYTES_MAX, WARNINGS_MAX, Dotenv, parse_dotenv, read_dotenv


def parse(text: str) -> Dotenv:
    return parse_dotenv(text.encode(), ".env")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=b", "b"),
        ("A = b", "b"),
        ("export A=b", "b"),
        ("A=", ""),
        ("A=b # a comment", "b"),
        ("A=b#c", "b#c"),
        ("A='b # c'", "b # c"),
        ('A="b\\nc"', "b\nc"),
        ("A='b\\nc'", "b\\nc"),
        ('A="b\nc"', "b\nc"),
        ("A=b\nA=c", "c"),
        ("\ufeffA=b\r\n", "b"),
        ("A=Zoë", "Zoë"),
        ("B=1\nA=${B}-$B-${HOME:-x}", "${B}-$B-${HOME:-x}"),
        ('B=1\nA="${B}"', "${B}"),
    ],
)
def test_a_value_is_what_stands_there(text: str, value: str) -> None:
    read = parse(text)
    assert dict(read.variables)["A"] == value
    assert read.warnings == ()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("hunter2", 1),
        ("A=1\n\n# a comment\nhunter2\nB=2", 4),
        ("hunter-2=hunter2", 1),
        ("2hunter=hunter2", 1),
        ("A='hunter2", 1),
        ("\r\n\r\nA='hunter2' hunter2", 3),
        ("A=1\0hunter2", 1),
    ],
)
def test_a_bad_line_is_named_and_never_shown(text: str, line: int) -> None:
    read = parse(text)
    assert read.warnings == (f".env, line {line}, is no variable: write NAME=value.",)
    assert "hunter" not in str(read.variables)


def test_the_other_lines_count() -> None:
    assert parse("A=1\nnothing\nB=2").variables == (("A", "1"), ("B", "2"))


def test_bad_lines_are_not_all_told() -> None:
    read = parse("x\n" * 1000)
    assert len(read.warnings) == WARNINGS_MAX + 1
    assert read.warnings[-1] == ".env: so are 1000 lines in all."


def test_no_more_than_the_largest_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=" + "b" * (DOTENV_BYTES_MAX - 2))
    assert len(dict(read_dotenv(path, ".env").variables)["A"]) == DOTENV_BYTES_MAX - 2
    path.write_text("A=" + "b" * (DOTENV_BYTES_MAX - 1))
    read = read_dotenv(path, "functions/a/.env")
    assert read.variables == ()
    assert len(read.warnings) == 1
    assert read.warnings[0].startswith("functions/a/.env is larger than 65536 bytes, the most that")
    assert read.warnings[0].endswith("; none of its variables is set.")


def test_what_cannot_be_read_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    assert read_dotenv(path, ".env") == Dotenv(variables=(), warnings=())
    os.mkfifo(path)
    assert "is no regular file; none" in read_dotenv(path, ".env").warnings[0]
    path.unlink()
    path.write_bytes(b"A=\xff")
    assert "is no text in UTF-8; none" in read_dotenv(path, ".env").warnings[0]
    path.unlink()
    path.symlink_to(".env")
    assert "cannot be read: " in read_dotenv(path, ".env").warnings[0]

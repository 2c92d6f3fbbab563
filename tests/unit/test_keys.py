"""API keys and the lines that say what they allow."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from quarterhour.cli.main import main
from quarterhour.errors import SettingsError
from quarterhour.keys import (
    FILE_BYTES_MAX,
    GRANTS_MAX,
    Grant,
    Role,
    digest_of,
    line_of,
    new_key,
    parse_lines,
    read_key_file,
)

HASH = f"sha256:{'0a' * 32}"
DIGEST = b"\x0a" * 32

grants = st.builds(
    Grant,
    digest=st.none() | st.binary(min_size=32, max_size=32),
    roles=st.frozensets(st.sampled_from(Role), min_size=1),
    functions=st.lists(st.from_regex(r"[A-Za-z0-9_*?-]{1,20}", fullmatch=True), max_size=4).map(tuple),
)


def test_a_key_is_256_random_bits_and_is_kept_as_its_sha_256() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert {(key[:3], len(key)) for key in made} == {("qh_", 46)}  # 43 characters of 6 bits
    assert digest_of(b"abc").hex().startswith("ba7816bf8f01cfea")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"{HASH} invoke", Grant(digest=DIGEST, roles=frozenset({Role.INVOKE}))),
        (
            f"  {HASH.upper().replace('SHA', 'sha')}\tread,invoke   send-*,a  # Ada's",
            Grant(digest=DIGEST, roles=frozenset({Role.READ, Role.INVOKE}), functions=("send-*", "a")),
        ),
        (
            "anonymous invoke webhook-*",
            Grant(digest=None, roles=frozenset({Role.INVOKE}), functions=("webhook-*",)),
        ),
    ],
)
def test_a_line_says_what_a_key_allows(line: str, expected: Grant) -> None:
    assert parse_lines(["# keys", "", line, f"#{line}"]) == (expected,)


@given(grants)
def test_what_is_written_as_a_line_is_read_as_the_same(grant: Grant) -> None:
    assert parse_lines([line_of(grant)]) == (grant,)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("secret", "it must be a key's hash, its roles"),
        (f"{HASH}", "it must be a key's hash, its roles"),
        (f"{HASH} invoke a secret", "it must be a key's hash, its roles"),
        (f"{HASH}0 invoke", "it must begin with sha256:"),
        ("sha256:secret invoke", "it must begin with sha256:"),
        ("qh_secret invoke", "it has a key where its hash should be"),
        (f"{HASH} secret", "its roles must be of invoke, read, admin"),
        (f"{HASH} invoke,", "its roles must be of invoke, read, admin"),
        (f"{HASH} invoke secret/*", "its functions must be names or patterns"),
        (f"{HASH} invoke a,", "its functions must be names or patterns"),
    ],
)
def test_a_bad_line_is_named_by_its_number_and_never_shown(tmp_path: Path, line: str, wrong: str) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# mine\n{HASH} read\n{line}\n")
    with pytest.raises(SettingsError) as caught:
        read_key_file(file)
    assert str(caught.value).startswith(f"The file of API keys, {file}, line 3: {wrong}")
    assert "secret" not in str(caught.value)
    assert "0a0a" not in str(caught.value)


def test_a_file_has_a_bounded_size_and_number_of_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{HASH} read\n" * GRANTS_MAX)
    assert len(read_key_file(file)) == GRANTS_MAX
    file.write_text(f"{HASH} read\n" * (GRANTS_MAX + 1))
    with pytest.raises(SettingsError, match=f"line {GRANTS_MAX + 1}: there are more than {GRANTS_MAX} keys"):
        read_key_file(file)
    file.write_text("#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(SettingsError, match="has more than"):
        read_key_file(file)
    file.unlink()
    with pytest.raises(SettingsError, match=r"keys, cannot be read: No such file or directory\.$"):
        read_key_file(file)


@pytest.mark.parametrize(
    ("line", "role", "function", "allowed"),
    [
        ("invoke", Role.INVOKE, "any", True),
        ("invoke", Role.READ, "any", False),
        ("read", Role.ADMIN, "any", False),
        ("admin", Role.INVOKE, "any", True),
        ("admin", Role.READ, "any", True),
        ("invoke send-*", Role.INVOKE, "send-mail", True),
        ("invoke send-*", Role.INVOKE, "resend-mail", False),
        ("invoke send-*", Role.INVOKE, "Send-mail", False),
        ("admin a,b?", Role.READ, "b1", True),
        ("admin a,b?", Role.READ, "b", False),
        ("invoke a-*", Role.INVOKE, "", False),
    ],
)
def test_what_a_line_allows(line: str, role: Role, function: str, allowed: bool) -> None:
    (grant,) = parse_lines([f"{HASH} {line}"])
    assert grant.allows(role, function) is allowed


def test_key_new_prints_a_key_and_its_line() -> None:
    arguments = ["key", "new", "--role", "read", "--role", "invoke", "--functions", "send-*, report"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0
    key, line = result.stdout.splitlines()
    expected = Grant(
        digest=digest_of(key.encode()),
        roles=frozenset({Role.READ, Role.INVOKE}),
        functions=("send-*", "report"),
    )
    assert parse_lines([line]) == (expected,)
    assert key not in result.stderr


def test_key_new_refuses_what_is_no_pattern() -> None:
    result = CliRunner().invoke(main, ["key", "new", "--role", "read", "--functions", "a/b"])
    assert result.exit_code == 1
    assert "'a/b', which is no name of a function" in result.output

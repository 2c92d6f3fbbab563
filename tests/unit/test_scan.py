"""Which files are functions: the rows of "Finding functions", one by one."""

from pathlib import Path

import pytest

from quarterhour.errors import SettingsError
from runner.scan import scan


def make(folder: Path, *files: str) -> Path:
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return folder


def found(folder: Path) -> dict[str, str]:
    return {one.name: str(one.path.relative_to(folder)) for one in scan(folder).found}


@pytest.mark.parametrize("layout", ["hello.py", "hello/hello.py", "hello/index.py"])
def test_three_layouts(tmp_path: Path, layout: str) -> None:
    assert found(make(tmp_path, layout)) == {"hello": layout}


def test_deeper_and_other_files_are_no_functions(tmp_path: Path) -> None:
    make(
        tmp_path,
        "hello/deep/hello.py",
        "hello/other.py",
        "README.md",
        "data.json",
        "__init__.py",
        "lib/__init__.py",
        "__pycache__/hello.cpython-311.pyc",
        ".hidden.py",
        ".git/.git.py",
        "Makefile",
    )
    assert scan(tmp_path).found == ()
    assert scan(tmp_path).warnings == ()


@pytest.mark.parametrize(
    ("files", "first"),
    [
        (["a.py", "a/a.py"], "a/a.py"),
        (["a.py", "a/index.py"], "a/index.py"),
        (["a/index.py", "a/a.py"], "a/a.py"),
        (["a/index.js", "a/a.cts"], "a/a.cts"),
        (["a.js", "a.mjs", "a.cjs", "a.ts", "a.mts", "a.cts"], "a.js"),
        (["a.mjs", "a.cjs", "a.ts", "a.mts", "a.cts"], "a.mjs"),
        (["a.cjs", "a.ts", "a.mts", "a.cts"], "a.cjs"),
        (["a.ts", "a.mts", "a.cts"], "a.ts"),
        (["a.mts", "a.cts"], "a.mts"),
        (["a.js", "a/index.cts"], "a/index.cts"),
    ],
)
def test_precedence(tmp_path: Path, files: list[str], first: str) -> None:
    folder = make(tmp_path / "functions", *files)
    assert found(folder) == {"a": first}
    warnings = scan(folder).warnings
    assert len(warnings) == len(files) - 1
    for file in set(files) - {first}:
        assert f"functions/{file} is not served: functions/{first} is the function 'a'." in warnings


@pytest.mark.parametrize(
    "files", [["a.py", "a.js"], ["a.ts", "a/index.py"], ["a/a.mjs", "a.py"], ["a/a.py", "a/index.js"]]
)
def test_two_languages_of_one_name_name_both_files(tmp_path: Path, files: list[str]) -> None:
    folder = make(tmp_path / "functions", *files, "other.py")
    with pytest.raises(SettingsError) as caught:
        scan(folder)
    for file in files:
        assert f"functions/{file}" in str(caught.value)


def test_names_are_case_sensitive(tmp_path: Path) -> None:
    assert found(make(tmp_path, "Hello.py")) == {"Hello": "Hello.py"}
    assert found(make(tmp_path, "World/world.py")) == {"Hello": "Hello.py"}


def test_runtimes(tmp_path: Path) -> None:
    folder = make(tmp_path, "a.py", "b.js", "c/index.ts")
    assert {one.name: one.runtime for one in scan(folder).found} == {"a": "python", "b": "node", "c": "node"}


@pytest.mark.parametrize(
    "name", ["a.b", "a b", "ä", "a$", "x" * 129, "\n", "a\udcff"], ids=lambda name: ascii(name[:9])
)
def test_a_name_that_is_none_is_never_served_and_said_once(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "functions", f"{name}.py", "good.py")
    result = scan(folder)
    assert [one.name for one in result.found] == ["good"]
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith("functions/")
    assert result.warnings[0].isprintable()
    result.warnings[0].encode()  # no lone surrogates that a log could choke on


@pytest.mark.parametrize("name", ["a", "_", "-", "A-z_09", "x" * 128])
def test_a_name_that_is_one(tmp_path: Path, name: str) -> None:
    assert set(found(make(tmp_path, f"{name}.py"))) == {name}


def test_a_folder_with_the_name_of_a_file_is_no_function(tmp_path: Path) -> None:
    (tmp_path / "a.py").mkdir()
    (tmp_path / "b" / "b.py").mkdir(parents=True)
    folders = scan(tmp_path)
    # b.py is listed: what opens it says that it is no regular file.
    assert [one.name for one in folders.found] == ["b"]


def test_symlinks(tmp_path: Path) -> None:
    folder = make(tmp_path / "functions", "a.py")
    make(tmp_path / "elsewhere", "index.py")
    (folder / "file.py").symlink_to(folder / "a.py")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)  # is no function: it has neither loop.py nor index.py
    (folder / "round.py").symlink_to("round.py")  # is found, and cannot be read
    (folder / "gone.py").symlink_to("nowhere.py")
    assert found(folder) == {
        "a": "a.py",
        "file": "file.py",
        "gone": "gone.py",
        "linked": "linked/index.py",
        "round": "round.py",
    }


def test_a_folder_that_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "functions", "locked/index.py", "good.py")
    iterdir = Path.iterdir

    def refuse(path: Path) -> object:  # for root, chmod refuses nothing
        if path.name == "locked":
            raise PermissionError(13, "Permission denied")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    result = scan(folder)
    assert [one.name for one in result.found] == ["good"]
    assert result.warnings == ("functions/locked: Permission denied.",)


def test_no_folder_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"functions.*No such file.*--functions"):
        scan(tmp_path / "functions")
    (tmp_path / "functions").write_text("")
    with pytest.raises(SettingsError, match="Not a directory"):
        scan(tmp_path / "functions")


def test_an_empty_folder_has_no_functions(tmp_path: Path) -> None:
    assert scan(tmp_path).found == ()

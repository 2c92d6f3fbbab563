"""A folder becomes a catalog: what is wrong with one function never stops another."""

import os
from pathlib import Path

import pytest

from quarterhour.errors import SettingsError
from runner.catalog import SOURCE_BYTES_MAX, Catalog, load_catalog
from runner.dependencies import Installed
from runner.sandbox.job import Code
from runner.sandbox.node import find

HANDLER = "def handler(event, context):\n    return {'statusCode': 200}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's folder with a functions folder and one good function in it."""
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "good.py").write_text(HANDLER)
    return tmp_path


def load(project: Path, *, working_directory: Path | None = None, generation: int = 0) -> Catalog:
    return load_catalog(
        project / "functions",
        working_directory=working_directory or project,
        synchronous_limit_s=60,
        background_limit_s=900,
        generation=generation,
    )


def write(project: Path, file: str, text: str | bytes) -> Path:
    path = project / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def error_of(catalog: Catalog, name: str) -> str:
    """The error of a function that cannot run, while the good one can."""
    entry = catalog.entries[name]
    assert entry.code is None
    assert catalog.entries["good"].code is not None
    assert entry.manifest.error is not None
    return entry.manifest.error


def test_a_function_that_runs(project: Path) -> None:
    source = HANDLER + "config = {'timeout': 5, 'memory': 128, 'retries': 0}"
    path = write(project, "functions/work-background/index.py", source)
    entry = load(project).entries["work-background"]
    assert entry.code is not None
    assert (entry.code.function, entry.manifest.runtime) == ("work-background", "python")
    assert (entry.code.path, entry.code.folder) == (path, path.parent)
    assert (entry.code.memory_mib, entry.code.environment) == (128, ())
    assert entry.manifest.background
    assert entry.manifest.timeout_s == 5
    assert entry.manifest.retry.retries == 0
    assert entry.manifest.error is None


def test_a_relative_folder_becomes_absolute(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    catalog = load_catalog(
        Path("functions"), working_directory=Path(), synchronous_limit_s=60, background_limit_s=900
    )
    code = catalog.entries["good"].code
    assert code is not None
    assert code.path.is_absolute()


def test_the_module_is_not_run(project: Path) -> None:
    write(project, "functions/bomb.py", f"open({str(project / 'ran')!r}, 'w')\n" + HANDLER)
    assert load(project).entries["bomb"].code is not None
    assert not (project / "ran").exists()


def test_code_differs_when_what_would_run_does(project: Path) -> None:
    path = project / "functions" / "good.py"

    def code(generation: int = 0) -> Code:
        found = load(project, generation=generation).entries["good"].code
        assert found is not None
        return found

    first = code()
    assert first.source == HANDLER.encode()
    os.utime(path, ns=(1, 1))
    assert code() == first, "a touched file is the same code"
    assert code(generation=1) != first
    path.write_text(HANDLER + "#")
    assert code() != first
    path.write_text(HANDLER)
    write(project, "quarterhour.toml", "[functions.good]\nenvironment = {A = 'b'}\n")
    assert code() != first


def test_a_syntax_error_names_file_and_line(project: Path) -> None:
    write(project, "functions/bad-background.py", "x = 1\ndef handler(:\n")
    catalog = load(project)
    error = "functions/bad-background.py, line 2, is not valid Python: invalid syntax."
    assert error_of(catalog, "bad-background") == error
    assert catalog.entries["bad-background"].manifest.background  # it is accepted, and then a dead letter


def test_a_broken_file_still_has_what_the_toml_says(project: Path) -> None:
    write(project, "functions/bad.py", "(")
    write(project, "quarterhour.toml", "[functions.bad]\nbackground = true\ntimeout = 7\n")
    manifest = load(project).entries["bad"].manifest
    assert (manifest.background, manifest.timeout_s) == (True, 7)


def test_bytes_that_are_no_text(project: Path) -> None:
    write(project, "functions/bad.py", b"x = '\xff\xfe'\n")
    assert error_of(load(project), "bad").startswith(
        "functions/bad.py, line 1, is not valid Python: (unicode"
    )


def test_a_bad_config_names_the_file(project: Path) -> None:
    write(project, "functions/bad/bad.py", "config = {'timeout': 'soon'}")
    error = error_of(load(project), "bad")
    assert error == (
        "functions/bad/bad.py: config: timeout is 'soon', but must be a number of seconds above 0."
    )


def test_a_config_that_is_no_literal(project: Path) -> None:
    write(project, "functions/bad.py", "config = {\n'timeout': 5 * 60}")
    assert error_of(load(project), "bad").startswith("functions/bad.py, line 2: the value of 'timeout'")


def test_the_largest_file_and_one_byte_more(project: Path) -> None:
    write(project, "functions/large.py", b"#" * SOURCE_BYTES_MAX)
    write(project, "functions/larger.py", b"#" * (SOURCE_BYTES_MAX + 1))
    catalog = load(project)
    assert catalog.entries["large"].code is not None
    assert error_of(catalog, "larger") == (
        "functions/larger.py is larger than 1048576 bytes, the most that a function's file may have."
    )


def test_links_to_nowhere_and_in_circles(project: Path) -> None:
    (project / "functions" / "round.py").symlink_to("round.py")
    (project / "functions" / "gone.py").symlink_to("nowhere.py")
    catalog = load(project)
    assert error_of(catalog, "round").startswith("functions/round.py cannot be read: ")
    assert error_of(catalog, "gone") == "functions/gone.py cannot be read: No such file or directory."


def test_what_is_no_regular_file_is_not_waited_for(project: Path) -> None:
    os.mkfifo(project / "functions" / "pipe.py")
    (project / "functions" / "device.py").symlink_to("/dev/zero")
    (project / "functions" / "folder" / "folder.py").mkdir(parents=True)
    catalog = load(project)
    for name, place in (("pipe", "pipe.py"), ("device", "device.py"), ("folder", "folder/folder.py")):
        assert error_of(catalog, name) == f"functions/{place} is no regular file."


def test_without_node_javascript_is_listed_with_what_it_needs(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "_packaged", lambda: None)
    monkeypatch.setenv("PATH", "")
    write(project, "functions/a-background.js", "exports.handler = async () => ({statusCode: 200})")
    write(project, "functions/b/b.ts", "")
    catalog = load(project)
    for name, place in (("a-background", "a-background.js"), ("b", "b/b.ts")):
        error = error_of(catalog, name)
        assert error.startswith(f"functions/{place}: JavaScript and TypeScript functions need Node.js")
        assert 'pip install "quarterhour[node]"' in error
        assert catalog.entries[name].manifest.runtime == "node"
    assert catalog.entries["a-background"].manifest.background


def test_what_the_scan_says_comes_along(project: Path) -> None:
    write(project, "functions/a.b.py", HANDLER)
    write(project, "functions/good/index.py", HANDLER)
    warnings = load(project).warnings
    assert len(warnings) == 2
    assert "functions/a.b.py is not served" in warnings[0]
    assert "functions/good.py is not served" in warnings[1]
    write(project, "functions/good/good.js", "")
    with pytest.raises(SettingsError, match="two languages"):
        load(project)


@pytest.mark.parametrize("file", ["quarterhour.toml", "netlify.toml"])
def test_toml_of_the_working_directory_then_beside_the_functions(
    project: Path, tmp_path_factory: pytest.TempPathFactory, file: str
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(project, file, "[functions.good]\ntimeout = 7\n")
    assert load(project, working_directory=elsewhere).entries["good"].manifest.timeout_s == 7
    write(elsewhere, file, "[functions.good]\ntimeout = 8\n")
    assert load(project, working_directory=elsewhere).entries["good"].manifest.timeout_s == 8


def test_the_source_is_heard_before_the_toml_and_the_toml_before_the_suffix(project: Path) -> None:
    write(project, "functions/a-background.py", HANDLER + "config = {'timeout': 5}")
    write(project, "quarterhour.toml", "[functions.a-background]\ntimeout = 6\nbackground = false\n")
    manifest = load(project).entries["a-background"].manifest
    assert (manifest.timeout_s, manifest.background) == (5, False)


def test_toml_gives_the_environment(project: Path) -> None:
    write(project, "quarterhour.toml", '[functions."good".environment]\nTOKEN = "secret"\n')
    entry = load(project).entries["good"]
    assert entry.code is not None
    assert entry.code.environment == (("TOKEN", "secret"),)
    assert "secret" not in str(entry.manifest)  # what is announced is for all to see


def test_a_bad_value_in_toml_is_that_function_s_error(project: Path) -> None:
    write(project, "functions/bad.py", HANDLER)
    write(project, "netlify.toml", '[functions."bad"]\nmemory = "much"\n')
    error = error_of(load(project), "bad")
    assert error.startswith("netlify.toml: [functions.\"bad\"]: memory is 'much', but must be a whole number")


def test_toml_of_a_function_that_is_not_there_is_a_warning(project: Path) -> None:
    write(project, "quarterhour.toml", '[functions."gone"]\ntimeout = 5\n')
    assert load(project).warnings == (
        'quarterhour.toml: [functions."gone"] says something of a function that is not in the folder.',
    )


def test_a_key_beside_the_tables_is_a_warning(project: Path) -> None:
    write(project, "quarterhour.toml", '[functions]\ntimeout = 5\ngood = true\ndirectory = "functions"\n')
    warnings = load(project).warnings
    assert len(warnings) == 2
    assert "[functions] timeout says nothing about a function" in warnings[0]
    assert "[functions] good says nothing about a function" in warnings[1]


def test_netlify_s_own_keys_are_passed_over(project: Path) -> None:
    text = (
        '[functions]\nnode_bundler = "esbuild"\n[functions.good]\nincluded_files = ["data/**"]\ntimeout = 5\n'
    )
    write(project, "netlify.toml", text)
    catalog = load(project)
    assert catalog.warnings == ()
    assert catalog.entries["good"].manifest.error is None
    assert catalog.entries["good"].manifest.timeout_s == 5


@pytest.mark.parametrize("text", ["[functions", "functions = 5", b"\xff"])
def test_toml_that_cannot_be_read_is_a_settings_error(project: Path, text: str | bytes) -> None:
    write(project, "quarterhour.toml", text)
    with pytest.raises(SettingsError, match=r"quarterhour\.toml"):
        load(project)


def test_a_timeout_past_the_limit_is_capped_and_said(project: Path) -> None:
    write(project, "functions/slow.py", HANDLER + "config = {'timeout': 90}")
    catalog = load(project)
    assert catalog.entries["slow"].manifest.timeout_s == 60
    assert catalog.warnings == (
        "functions/slow.py: config: timeout is 90, more than --synchronous-limit, so that 60 seconds apply.",
    )


def test_what_is_installed_for_a_function_comes_along(project: Path) -> None:
    for name in ("ready", "failed", "waiting"):
        write(project, f"functions/{name}.py", HANDLER)
    states = {
        "ready": Installed(path=Path("/cache/1"), generation=2),
        "failed": Installed(error="functions/requirements.txt could not be installed: words."),
        "waiting": Installed(error="It is being installed.", installing=True),
    }
    entries = load_catalog(
        project / "functions",
        working_directory=project,
        synchronous_limit_s=60,
        background_limit_s=900,
        dependencies=lambda found: states.get(found.name, Installed()),
        generation=5,
    ).entries
    ready, good = entries["ready"], entries["good"]
    assert ready.code is not None
    assert good.code is not None
    assert ready.code.launch.python == Path("/cache/1/bin/python")
    assert good.code.launch.python is None
    assert (ready.code.generation, good.code.generation) == (7, 5)
    assert entries["failed"].manifest.error == states["failed"].error
    assert [entries[name].code for name in ("failed", "waiting")] == [None, None]
    assert [name for name, entry in entries.items() if entry.installing] == ["waiting"]


def test_no_folder_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--functions"):
        load(tmp_path)

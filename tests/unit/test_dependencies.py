"""Which list is whose, that each is installed once, and that a failure is that of its functions alone."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runner.dependencies import AT_ONCE_MAX, Dependencies, Installed, in_thread
from runner.sandbox.runtime import InstallError
from runner.scan import scan
from tests.waiting import eventually


@dataclass
class Installer:
    """Says where it was called; `do` is what it does."""

    listing: str = "requirements.txt"
    calls: list[Path] = field(default_factory=list)
    do: Callable[[Path], Path | None] = lambda listing: listing.parent

    def install(self, listing: Path, cache: Path, *, python: Path) -> Path | None:
        self.calls.append(listing)
        return self.do(listing)


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    """`a` and `b` have folders of their own, `b` a list of its own too; `c` and `d` have none."""
    folder = tmp_path / "functions"
    for file in ("a/a.py", "b/index.py", "b/requirements.txt", "c.py", "d.js", "requirements.txt"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("")
    return folder


def made(functions: Path, *installers: Installer) -> Dependencies:
    names = ("python", "node")
    known = dict(zip(names, installers, strict=False))
    return Dependencies(functions, functions.parent / "cache", known, python=Path("/usr/bin/python3"))


def look(dependencies: Dependencies, functions: Path) -> dict[str, Installed]:
    return {found.name: dependencies.of(found) for found in scan(functions).found}


async def test_a_folder_s_own_list_wins_and_each_is_installed_once(functions: Path) -> None:
    installer = Installer()
    dependencies = made(functions, installer)
    look(dependencies, functions)
    await dependencies.install()
    paths = {name: installed.path for name, installed in look(dependencies, functions).items()}
    assert paths == {"a": functions, "b": functions / "b", "c": functions, "d": None}
    assert sorted(installer.calls) == [functions / "b/requirements.txt", functions / "requirements.txt"]
    await dependencies.install()
    assert len(installer.calls) == 2


async def test_until_it_is_installed_the_function_says_so(functions: Path) -> None:
    dependencies = made(functions, Installer())
    before = look(dependencies, functions)
    assert before["b"].installing
    assert before["b"].error == (
        "functions/b/requirements.txt is being installed; the function can be called when that is done."
    )
    assert before["d"] == Installed()
    await dependencies.install()
    assert not look(dependencies, functions)["b"].installing


async def test_a_failure_is_that_of_its_functions_alone_and_is_not_repeated(functions: Path) -> None:
    def fail(listing: Path) -> Path:
        if listing.parent.name == "b":
            message = "could not be installed: its own words."
            raise InstallError(message)
        return listing.parent

    installer = Installer(do=fail)
    dependencies = made(functions, installer)
    look(dependencies, functions)
    await dependencies.install()
    after = look(dependencies, functions)
    assert after["b"].error == "functions/b/requirements.txt could not be installed: its own words."
    assert {name for name, installed in after.items() if installed.error} == {"b"}
    dependencies.saved([functions / "b/index.py", functions / "requirements.txt"])
    look(dependencies, functions)
    await dependencies.install()
    assert [path.parent.name for path in installer.calls].count("b") == 1
    dependencies.saved([functions / "b/requirements.txt"])
    await dependencies.install()
    assert [path.parent.name for path in installer.calls].count("b") == 2


@pytest.mark.parametrize(
    ("path", "installed"),
    [
        ("requirements.txt", {"requirements.txt"}),
        ("requirements-base.txt", {"requirements.txt"}),
        ("b/requirements.txt", {"b/requirements.txt"}),
        ("b/notes.txt", set()),
        ("data.json", set()),
        ("package-lock.json", {"package.json"}),
        ("c.py", set()),
        ("", {"requirements.txt", "b/requirements.txt", "package.json"}),  # the folder was replaced
    ],
)
async def test_what_is_saved_is_installed_anew(functions: Path, path: str, installed: set[str]) -> None:
    (functions / "package.json").write_text("{}")
    both = [Installer(), Installer(listing="package.json")]
    dependencies = made(functions, *both)
    look(dependencies, functions)
    await dependencies.install()
    before = look(dependencies, functions)
    for installer in both:
        installer.calls.clear()
    dependencies.saved([functions / path])
    await dependencies.install()
    assert {str(call.relative_to(functions)) for each in both for call in each.calls} == installed
    changed = {name for name, now in look(dependencies, functions).items() if now != before[name]}
    assert bool(changed) == bool(installed), "new workers get what is installed"


async def test_what_is_saved_in_the_middle_is_begun_anew_and_not_waited_for(functions: Path) -> None:
    go = threading.Event()

    def wait(listing: Path) -> Path:
        number = len(installer.calls)
        if number == 1:
            go.wait(10)
        return Path(f"{number}")

    async def then() -> None:
        served.append(look(dependencies, functions)["a"].path)

    (functions / "b/requirements.txt").unlink()
    installer, served = Installer(do=wait), list[Path | None]()
    dependencies = made(functions, installer)
    look(dependencies, functions)
    async with asyncio.TaskGroup() as tasks:
        dependencies.begin(tasks, then)
        await eventually(lambda: installer.calls, what="it has begun")
        dependencies.begin(tasks, then)
        dependencies.saved([functions / "requirements.txt"])
        dependencies.begin(tasks, then)
        await eventually(lambda: served, what="the new one is served")
        go.set()
    assert served == [Path("2")]
    assert len(installer.calls) == 2
    assert look(dependencies, functions)["a"].path == Path("2")


async def test_a_list_that_is_gone_is_nobody_s(functions: Path) -> None:
    installer = Installer()
    dependencies = made(functions, installer)
    look(dependencies, functions)
    for listing in ("requirements.txt", "b/requirements.txt"):
        (functions / listing).unlink()
    await dependencies.install()
    assert installer.calls == []
    assert set(look(dependencies, functions).values()) == {Installed()}


async def test_several_at_once_but_not_all(tmp_path: Path) -> None:
    count = AT_ONCE_MAX + 2
    go, running, most = threading.Event(), [0], [0]
    lock = threading.Lock()

    def wait(listing: Path) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        go.wait(10)
        with lock:
            running[0] -= 1

    for number in range(count):
        folder = tmp_path / "functions" / f"f{number}"
        folder.mkdir(parents=True)
        (folder / "index.py").write_text("")
        (folder / "requirements.txt").write_text("")
    installer = Installer(do=wait)
    dependencies = made(tmp_path / "functions", installer)
    look(dependencies, tmp_path / "functions")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(dependencies.install())
        await eventually(lambda: running[0] == AT_ONCE_MAX, what="as many as may run are running")
        go.set()
    assert (len(installer.calls), most[0]) == (count, AT_ONCE_MAX)


async def test_nobody_waits_for_what_is_cancelled() -> None:
    begun, go = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go.wait(10)

    task = asyncio.create_task(in_thread(wait))
    await eventually(begun.is_set, what="it has begun")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()


async def test_an_error_of_a_thread_is_raised_where_it_is_waited_for() -> None:
    def fail() -> None:
        raise KeyError("x")  # noqa: EM101

    with pytest.raises(KeyError):
        await in_thread(fail)

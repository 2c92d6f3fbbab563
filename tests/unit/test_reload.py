"""What a new reading of the folder changes, and what may be a save half done."""

import asyncio
import functools
from collections.abc import AsyncIterator, Collection
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from quarterhour.errors import SettingsError
from quarterhour.function import Manifest
from quarterhour.retry import RetryPolicy
from runner import reload
from runner.catalog import Catalog, Entry
from runner.reload import Reloader, changes, difference, is_worse
from runner.sandbox.job import Code
from tests.waiting import eventually


def entry(name: str, source: str = "", *, generation: int = 0, error: str | None = None) -> Entry:
    manifest = Manifest(
        name=name, runtime="python", background=False, timeout_s=60, retry=RetryPolicy(), error=error
    )
    path = Path("/functions") / f"{name}.py"
    code = Code(function=name, path=path, folder=path.parent, source=source.encode(), generation=generation)
    return Entry(manifest=manifest, code=None if error else code)


OLD = {"a": entry("a"), "b": entry("b")}


def test_the_same_is_no_difference() -> None:
    assert not difference(OLD, dict(OLD))


def test_other_code_is_a_change_that_nobody_has_to_be_told() -> None:
    different = difference(OLD, OLD | {"a": entry("a", "other")})
    assert (different.changed, different.announce, different.gone) == (("a",), (), ())


def test_another_manifest_is_announced() -> None:
    slower = replace(OLD["a"], manifest=replace(OLD["a"].manifest, timeout_s=5))
    different = difference(OLD, {"a": slower, "c": entry("c")})
    assert different.changed == ("a", "c")
    assert different.announce == (slower.manifest, entry("c").manifest)
    assert different.gone == ("b",)


@pytest.mark.parametrize(
    ("new", "worse"),
    [
        (OLD, False),
        (OLD | {"c": entry("c", error="broken")}, False),
        (OLD | {"a": entry("a", "other")}, False),
        (OLD | {"a": entry("a", error="broken")}, True),
        ({"a": OLD["a"]}, True),
    ],
)
def test_what_looks_worse(new: dict[str, Entry], *, worse: bool) -> None:
    assert is_worse(OLD, new) is worse


def test_what_was_broken_cannot_get_worse() -> None:
    assert not is_worse({"a": entry("a", error="broken")}, {})


class Folder:
    """Readings to come, the last of them for ever; remembers with which generation each was made."""

    def __init__(self, *readings: dict[str, Entry] | SettingsError) -> None:
        self.readings = list(readings)
        self.generations: list[int] = []

    def read(self, generation: int) -> Catalog:
        self.generations.append(generation)
        reading = self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]
        if isinstance(reading, SettingsError):
            raise reading
        return Catalog(entries=reading, warnings=())


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "LOOK_TWICE_S", 0.001)


async def test_what_looks_worse_is_looked_at_twice() -> None:
    new = OLD | {"a": entry("a", "new")}
    folder = Folder({"b": OLD["b"]}, new)
    found = await Reloader(folder.read, OLD).reload([Path("/functions/a.py")])
    assert found is not None
    assert found[0] == new
    assert found[1].changed == ("a",)
    assert found[1].gone == ()


async def test_while_dependencies_are_installed_a_function_stays_what_it_was() -> None:
    installing = replace(entry("a", error="is being installed"), installing=True)
    unknown = replace(entry("c", error="is being installed"), installing=True)
    folder = Folder({"a": installing, "b": entry("b", "new"), "c": unknown})
    found = await Reloader(folder.read, OLD).reload([Path("/functions/a/requirements.txt")])
    assert found is not None
    assert found[0] == {"a": OLD["a"], "b": entry("b", "new"), "c": unknown}
    assert found[1].changed == ("b", "c")
    assert folder.generations == [0], "nothing looked worse"


async def test_what_stays_gone_is_gone() -> None:
    folder = Folder({"b": OLD["b"]})
    found = await Reloader(folder.read, OLD).reload([Path("/functions/a.py")])
    assert found is not None
    assert found[1].gone == ("a",)
    assert folder.generations == [0, 0]


async def test_a_folder_that_cannot_be_read_changes_nothing() -> None:
    folder = Folder(SettingsError("away"), OLD | {"c": entry("c")})
    reloader = Reloader(folder.read, OLD)
    assert await reloader.reload([Path("/functions")]) is None
    found = await reloader.reload([Path("/functions")])
    assert found is not None
    assert found[1].changed == ("c",)


@pytest.mark.parametrize(
    ("path", "generation"),
    [
        ("/functions/a.py", 0),
        ("/functions/c.py", 0),  # a new function's own
        ("/functions/mailer/mail.py", 1),
        ("/functions/data.csv", 0),
        ("/functions/mailer", 0),
    ],
)
async def test_a_shared_module_makes_a_new_generation(path: str, generation: int) -> None:
    folder = Folder(OLD | {"c": entry("c")})
    await Reloader(folder.read, OLD).reload([Path(path)])
    assert folder.generations[-1] == generation


async def test_what_changed_while_the_folder_could_not_be_read_is_not_forgotten() -> None:
    folder = Folder(SettingsError("broken TOML"), OLD)
    reloader = Reloader(folder.read, OLD)
    assert await reloader.reload([Path("/functions/mailer/mail.py")]) is None
    await reloader.reload([Path("/quarterhour.toml")])
    assert folder.generations == [0, 0, 1]
    await reloader.reload([Path("/quarterhour.toml")])
    assert folder.generations == [0, 0, 1, 1], "it is not counted again, either"


async def test_a_file_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("")
    code = OLD["a"].code
    assert code is not None
    found = OLD | {"a": replace(OLD["a"], code=replace(code, path=path))}
    moments = [path.stat().st_mtime + age_s for age_s in (0.01, 0.1, 0.2)]
    folder = Folder(found)
    await Reloader(folder.read, OLD, now=lambda: moments.pop(0)).reload([path])
    assert (len(folder.generations), moments) == (3, [])


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[list[Collection[Path]]]:
    """The changes that are reported, from a moment on at which the watch is known to work."""
    found: list[Collection[Path]] = []

    async def collect() -> None:
        async with aclosing(changes(folder, folder.parent, ["requirements.txt"])) as watching:
            async for paths in watching:
                found.append(paths)  # noqa: PERF401 - it never ends

    def probe() -> bool:
        (folder / "probe.py").write_text(f"# {len(found)}")
        return bool(found)

    task = asyncio.create_task(collect())
    try:
        await eventually(probe, what="the watch works")
        found.clear()
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_changes_of_code_and_of_the_projects_file_are_seen(tmp_path: Path) -> None:
    folder = tmp_path / "functions"
    (folder / "report").mkdir(parents=True)
    async with watched(folder) as found:

        def seen(name: str) -> bool:
            return any(path.name == name for paths in found for path in paths)

        (folder / "data.csv").write_text("1")
        (folder / "notes.txt").write_text("1")
        (folder / "report" / "index.py").write_text("1")
        await eventually(lambda: seen("index.py"), what="a file in a folder is seen")
        assert not seen("data.csv")
        assert not seen("notes.txt")
        for name in (".env", "requirements.txt", "requirements-base.txt"):
            (folder / "report" / name).write_text("1")
            await eventually(functools.partial(seen, name), what=f"{name} is seen")
        (tmp_path / "netlify.toml").write_text("")
        await eventually(lambda: seen("netlify.toml"), what="the project's file is seen")
        found.clear()
        (tmp_path / ".env").write_text("")
        await eventually(lambda: seen(".env"), what="the project's .env is seen")


async def test_a_folder_that_comes_back_is_watched_again(tmp_path: Path) -> None:
    folder = tmp_path / "functions"
    folder.mkdir()
    async with watched(folder) as found:
        folder.rename(tmp_path / "away")
        folder.mkdir()
        await eventually(lambda: any(folder in paths for paths in found), what="the new folder is seen")

        def seen() -> bool:
            (folder / "late.py").write_text(f"# {len(found)}")
            return any(path.name == "late.py" for paths in found for path in paths)

        await eventually(seen, what="what is saved in it is seen")

"""What a worker has of its own, and what it has not of the runner's."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.process.sandboxes import Bench, open_bench, response, settings
from tests.waiting import eventually

BASE_PYTHON = str(Path(sys.executable).resolve())  # of which a virtual environment is one


async def seen(bench: Bench, expression: str, **options: Any) -> Any:
    """What an expression is worth in a worker."""
    source = f"""
        import ctypes, json, os, resource, signal, stat, subprocess, sys, tempfile, time
        from pathlib import Path
        def handler(event, context):
            return {{"statusCode": 200, "body": json.dumps({expression})}}
        """
    return json.loads(await bench.text(bench.function(source, **options)))


async def test_the_environment_is_what_was_configured_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUARTERHOUR_BROKER", "nats://secret@localhost")
    monkeypatch.setenv("PYTHONPATH", "/secret")
    async with open_bench(tmp_path, settings(environment={"PATH": "/bin", "A": "1", "B": "2"})) as bench:
        own = (("B", "3"), ("C", "é"))
        environment = await seen(bench, "dict(os.environ)", environment=own)
        assert environment.pop("TMPDIR")
        assert environment == {"PATH": "/bin", "A": "1", "B": "3", "C": "é"}
        of_a_child = "subprocess.run(['/usr/bin/env'], capture_output=True, text=True).stdout"
        shown = await seen(bench, of_a_child, environment=own)
        assert sorted(line.partition("=")[0] for line in shown.splitlines()) == [
            "A",
            "B",
            "C",
            "PATH",
            "TMPDIR",
        ]
        assert "secret" not in await seen(bench, "Path('/proc/self/environ').read_text()")


async def test_a_worker_inherits_no_descriptors(bench: Bench) -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    links = await seen(
        bench, "{n: os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')[:-1]}"
    )
    os.close(read_end)
    os.close(write_end)
    assert set(links) == {"0", "1", "2", "3"}
    assert links["0"] == "/dev/null"
    assert links["1"].startswith("pipe:")
    assert links["2"].startswith("pipe:")
    assert links["3"].startswith("socket:")


async def test_a_program_that_it_starts_inherits_three(bench: Bench) -> None:
    listing = (
        "subprocess.run(['ls', '/proc/self/fd'], close_fds=False, capture_output=True, text=True).stdout"
    )
    numbers = (await seen(bench, listing)).split()
    assert numbers == ["0", "1", "2", "3"], "the fourth is the folder that it lists"


async def test_there_is_nothing_to_read_on_standard_input(bench: Bench) -> None:
    assert await seen(bench, "[sys.stdin.read(), os.read(0, 10).decode()]") == ["", ""]


async def test_a_session_of_its_own(bench: Bench) -> None:
    assert await seen(bench, "[os.getpid() == os.getsid(0) == os.getpgrp(), os.getppid() > 1]") == [
        True,
        True,
    ]


async def test_signals_are_as_in_any_program(bench: Bench) -> None:
    handlers = "[repr(signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGCHLD)]"
    assert all("SIG_DFL" in handler for handler in await seen(bench, handlers))
    ignored = "int(Path('/proc/self/status').read_text().partition('SigIgn:')[2].split()[0], 16)"
    mask = await seen(bench, ignored)
    assert not mask & (1 << (signal.SIGINT - 1)), "what a function starts could not be interrupted"
    blocked = "int(Path('/proc/self/status').read_text().partition('SigBlk:')[2].split()[0], 16)"
    assert await seen(bench, blocked) == 0


async def test_core_files_are_off_and_memory_is_limited(bench: Bench) -> None:
    expression = "[resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_DATA)[0]]"
    core, data = await seen(bench, expression, memory_mib=256)
    assert core == [0, 0]
    if sys.platform == "linux":
        assert data == 256 * 1024 * 1024


async def test_a_temporary_folder_of_its_own_that_goes_with_it(bench: Bench) -> None:
    source = """
        import os, tempfile
        from pathlib import Path
        def handler(event, context):
            folder = tempfile.gettempdir()
            if event["body"] is not None:
                os._exit(1)
            inner = Path(folder, "a", "b")
            inner.mkdir(parents=True)
            (inner / "file").write_text("x" * 100_000)
            assert os.environ["TMPDIR"] == folder
            return {"statusCode": 200, "body": f"{folder} {os.stat(folder).st_mode & 0o777:o}"}
        """
    codes = [bench.function(source) for _ in range(2)]
    places = [(await bench.text(code)).split() for code in codes]
    folders = [Path(place) for place, _ in places]
    assert folders[0] != folders[1]
    assert all(folder.is_dir() for folder in folders)
    assert {mode for _, mode in places} == {"700"}
    await bench.run(codes[0], body=b"exit")
    await eventually(lambda: not folders[0].exists(), what="the folder of a crashed worker was gone")
    assert folders[1].is_dir()


async def test_no_temporary_folder_stays_when_the_sandbox_ends(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench:
        source = "(Path(os.environ['TMPDIR'], 'file').write_text('x'), os.environ['TMPDIR'])[1]"
        folder = Path(await seen(bench, source))
    await eventually(lambda: not folder.exists(), what="the folder was gone")


async def test_the_module_path_has_the_functions_folder_first_and_not_the_workers(bench: Bench) -> None:
    path = await seen(bench, "sys.path")
    assert path[0] == str(bench.folder)
    assert "" not in path
    assert not [folder for folder in path if folder.endswith("sandbox/python")]


async def test_the_authors_api_is_all_that_a_function_can_import_of_us(tmp_path: Path) -> None:
    find = "bool(__import__('importlib.util').util.find_spec(name))"
    tried = f"{{name: {find} for name in ('runner', 'gateway', 'quarterhour')}}"
    loaded = (
        "[name for name in sys.modules if name.partition('.')[0] in ('runner', 'gateway', 'nats', 'orjson')]"
    )
    # Where it runs with our own interpreter, it finds what is installed there, and nothing is loaded of it.
    async with open_bench(tmp_path) as bench:
        assert await seen(bench, loaded) == []
    if sys.prefix == sys.base_prefix:
        pytest.skip("Only beside a virtual environment there is a Python that has nothing of us installed.")
    async with open_bench(tmp_path, settings(python=BASE_PYTHON)) as bench:
        assert await seen(bench, loaded) == []
        assert await seen(bench, tried) == {"runner": False, "gateway": False, "quarterhour": True}
        shown = "sorted(name for name in vars(__import__('quarterhour')) if name[0] != '_')"
        assert await seen(bench, shown) == ["DoNotRetry", "RetryAfter", "authors"]


async def test_argv_and_main_are_not_the_guards(bench: Bench) -> None:
    code = bench.function(
        "import sys\ndef handler(e, c): return {'statusCode': 200, 'body': repr(sys.argv)}", name="mine"
    )
    assert await bench.text(code) == "['mine']"


async def test_time_zone_and_text_are_as_everywhere(bench: Bench) -> None:
    assert await seen(bench, "[time.tzname[0], sys.getfilesystemencoding(), sys.stdout.encoding]") == [
        "UTC",
        "utf-8",
        "utf-8",
    ]


async def test_chance_differs_between_workers(bench: Bench) -> None:
    source = """
        import os, random
        def handler(event, context):
            return {"statusCode": 200, "body": f"{random.random()} {os.urandom(4).hex()}"}
        """
    values = [await bench.text(source) for _ in range(3)]
    assert len({value.split()[0] for value in values}) == 3
    assert len({value.split()[1] for value in values}) == 3


async def test_a_forked_worker_can_use_threads_and_processes(bench: Bench) -> None:
    source = """
        import concurrent.futures, multiprocessing
        def handler(event, context):
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                squares = list(pool.map(lambda n: n * n, range(10)))
            with multiprocessing.get_context("fork").Pool(2) as pool:
                negated = pool.map(int.__neg__, range(3))
            return {"statusCode": 200, "body": f"{sum(squares)} {negated}"}
        """
    assert response(await bench.run(source)).body == b"285 [0, -1, -2]"

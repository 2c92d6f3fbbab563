import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import click
import pytest

from quarterhour.cli import preflight
from quarterhour.cli.preflight import check_functions, claim, free_address

CLAIM = """
import sys
from pathlib import Path
from quarterhour.cli.preflight import claim
with claim(Path(sys.argv[1])):
    print("claimed", flush=True)
    sys.stdin.read()
"""


def sentence(error: pytest.ExceptionInfo[click.ClickException]) -> str:
    text = error.value.format_message()
    assert "\n" not in text
    assert error.value.exit_code == 1
    return text


def test_a_missing_functions_folder_is_refused(tmp_path: Path) -> None:
    check_functions(tmp_path)
    with pytest.raises(click.ClickException) as error:
        check_functions(tmp_path / "functions")
    assert sentence(error).startswith(f"There is no folder {tmp_path / 'functions'} with functions; make it")


def test_a_data_directory_has_one_holder_and_is_free_when_that_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "data"
    holder = subprocess.Popen(
        [sys.executable, "-c", CLAIM, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin
    assert holder.stdout
    with holder.stdin, holder.stdout:
        assert holder.stdout.readline() == "claimed\n"
        with pytest.raises(click.ClickException) as error, claim(folder):
            pass
        assert sentence(error).startswith(
            f"Another `quarterhour up` (process {holder.pid}) uses the data directory {folder}; stop it"
        )
        holder.kill()
        holder.wait()
        with claim(folder):
            assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("before", "after"), [(0o700, 0o711), (0o750, 0o751), (0o755, 0o755), (0o1700, 0o1711)]
)
def test_a_data_directory_that_is_there_is_opened_to_those_who_have_to_get_through(
    tmp_path: Path, before: int, after: int
) -> None:
    tmp_path.chmod(before)
    with claim(tmp_path):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == before
    with claim(tmp_path, mode=0o711):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == after
    with claim(tmp_path):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == after


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_directory_that_is_read_only_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(click.ClickException) as error, claim(tmp_path):
        pass
    assert sentence(error).startswith(f"The data directory {tmp_path} cannot be written (Permission denied)")


@pytest.mark.parametrize("name", ["file", "file/data", "/proc/data"])
def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(click.ClickException) as error, claim(tmp_path / name):
        pass
    assert sentence(error).startswith(f"The data directory {tmp_path / name} cannot be written (")


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(click.ClickException) as error:
            free_address("127.0.0.1", port)
        assert sentence(error).startswith(f"Port {port} on 127.0.0.1 is in use; stop what uses it, or")
        with pytest.raises(click.ClickException):
            free_address("0.0.0.0", port)
    assert free_address("127.0.0.1", port) == port


def test_port_0_is_a_free_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_address("127.0.0.1", 0) in preflight.QUIET_PORTS
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [taken.getsockname()[1], other.getsockname()[1]]
        monkeypatch.setattr("random.sample", lambda _, __: [ports[0], 20_001, ports[1]])
        assert free_address("127.0.0.1", 0) == 20_001
        monkeypatch.setattr("random.sample", lambda _, __: ports)
        with pytest.raises(click.ClickException, match="is in use"):
            free_address("127.0.0.1", 0)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(click.ClickException) as error:
        free_address(host, 0)
    assert sentence(error) == f"{host} is no address of this machine; choose another one with --host."

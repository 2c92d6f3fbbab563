"""The embedded NATS server as it is set up, before it starts."""

import re
import shutil
import subprocess
from pathlib import Path

import bcrypt
import pytest

from quarterhour.broker.nats.permissions import ROLES
from quarterhour.cli.nats_server import NatsServer, prepare, program
from quarterhour.cli.preflight import QUIET_PORTS
from tests.nats_server import nats_server_path


@pytest.fixture
def server(tmp_path: Path) -> NatsServer:
    return prepare(nats_server_path(), tmp_path, namespace="ours")


def test_only_hashes_of_the_passwords_leave_this_process(server: NatsServer) -> None:
    started = program(server, 3)
    shown = server.config.read_text() + "".join(started.arguments) + str(started.environment)
    assert len(set(server.passwords.values())) == len(ROLES)
    for role, password in server.passwords.items():
        assert len(password) == 48  # 192 bits
        assert password not in shown
        (hashed,) = re.findall(rf'user: {role}, password: "(\$2b\$.*)", permissions', shown)
        assert bcrypt.checkpw(password.encode(), hashed.encode())
        assert f"{role}:{password}@127.0.0.1:{server.port}?" in server.url(role)


def test_it_takes_half_of_what_is_free_or_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 1_000_000_000  # whatever others do on this disk meanwhile
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    empty = prepare(nats_server_path(), tmp_path, namespace="ours")
    assert empty.store_bytes_max == pytest.approx(free / 2, abs=100_000)  # it has a configuration
    stored = tmp_path / "nats" / "jetstream" / "stored"
    stored.parent.mkdir()
    stored.write_bytes(bytes(64 * 1024 * 1024))
    again = prepare(nats_server_path(), tmp_path, namespace="ours")
    assert again.store_bytes_max == pytest.approx((free + 64 * 1024 * 1024) / 2, abs=100_000)
    assert f"  max_file_store: {again.store_bytes_max}\n" in again.config.read_text()
    assert again.url("gateway").endswith(f"?sync_interval=always&max_file_store={again.store_bytes_max}")


def test_the_server_understands_it_and_listens_on_loopback_alone(server: NatsServer) -> None:
    done = subprocess.run([server.binary, "-t", "-c", server.config], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    text = server.config.read_text()
    assert re.findall(r"^(\w+): .*\b\d+\.\d+\.\d+\.\d+", text, re.MULTILINE) == ["listen"]
    assert f'listen: "127.0.0.1:{server.port}"' in text
    assert server.port in QUIET_PORTS  # no connection of anybody's takes it while the server is started again
    assert not re.search(
        r"^(http|https|monitor_port|websocket|mqtt|leafnodes|gateway|cluster)\b", text, re.MULTILINE
    )
    assert server.config.stat().st_mode & 0o777 == 0o600
    assert '"ours.q.*.*.*"' in text
    assert '"quarterhour.' not in text

"""Under which host a runner lists itself for Prometheus."""

import socket

import pytest

from quarterhour.settings import RunnerSettings
from runner.wiring import _advertised

HERE = socket.gethostname()


@pytest.mark.parametrize(
    ("metrics_host", "advertise", "host"),
    [
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "runner-1.example.org", "runner-1.example.org"),
        ("0.0.0.0", None, HERE),
        ("::", None, HERE),
        ("0.0.0.0", "10.0.0.7", "10.0.0.7"),
        ("fd00::7", None, "[fd00::7]"),
    ],
)
def test_the_advertised_host_can_be_reached(metrics_host: str, advertise: str | None, host: str) -> None:
    settings = RunnerSettings(broker="nats://there", metrics_host=metrics_host, advertise=advertise)
    assert _advertised(settings) == host

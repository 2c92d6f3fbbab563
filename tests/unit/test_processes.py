"""What a process may have of the machine: as many open files as it needs, if the machine lets it."""

import resource
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
from click.testing import CliRunner

import runner.__main__ as module
from quarterhour.processes import raise_descriptors

FEW = 256  # and more than a test has open


@pytest.fixture
def hard() -> Iterator[int]:
    """A process with few descriptors, which may have so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def allowed() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@pytest.mark.usefixtures("hard")
def test_a_process_asks_for_no_more_descriptors_than_it_wants() -> None:
    assert raise_descriptors(FEW + 100) == allowed() == FEW + 100
    assert raise_descriptors(FEW) == allowed() == FEW + 100


def test_a_process_gets_no_more_descriptors_than_it_may_have(hard: int) -> None:
    if hard == resource.RLIM_INFINITY:
        pytest.skip("there is no limit here")
    assert raise_descriptors(hard + 1) == allowed() == hard


@pytest.mark.usefixtures("hard")
def test_a_runner_has_descriptors_for_its_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []

    def run_process(process: Any) -> None:
        process.close()
        found.append(allowed())

    monkeypatch.setattr(module, "keep_others_out", Mock())
    monkeypatch.setattr(module, "configure_logging", Mock())
    monkeypatch.setattr(module, "run_process", run_process)
    result = CliRunner().invoke(module.main, ["--broker", "nats://there", "--slots", "100"])
    assert result.exit_code == 0, result.output
    assert found[0] >= 1000

"""What tests with real processes share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.process.sandboxes import Bench, open_bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A sandbox with four workers, of which no process is left at the end of the test."""
    async with open_bench(tmp_path) as bench:
        yield bench

"""A short run of the fault harness, always the same seed; `make faults` is the long one."""

import json
import os
from pathlib import Path

import pytest

from tests.faults.books import figures, wrong
from tests.faults.run import Options, Progress, run

LONG = os.environ.get("QUARTERHOUR_TEST_LONG") == "true"


async def balances(options: Options, folder: Path) -> None:
    books = await run(options, folder, Progress())
    found, table = wrong(books), figures(books)
    assert not found, json.dumps({"wrong": found, "figures": table}, indent=1)
    assert table["accepted"] >= 50
    assert table["faults"] >= options.seconds / options.every_s / 3


async def test_the_books_balance_after_faults(tmp_path: Path) -> None:
    await balances(Options(seed=5, seconds=6.0, every_s=0.5, lease_s=4.0), tmp_path)


@pytest.mark.skipif(not LONG, reason="takes a minute; QUARTERHOUR_TEST_LONG=true runs it")
async def test_the_books_of_a_cluster_balance_after_faults(tmp_path: Path) -> None:
    await balances(Options(seed=5, seconds=30.0, clustered=True), tmp_path)

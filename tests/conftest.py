"""What every test gets. A fixture that one folder uses belongs into that folder's own conftest.

The order is random: the seed is in the header of each run, and `pytest --randomly-seed=SEED` repeats it.
"""

import hypothesis
import pytest

# How fast examples are made and tried says something about the machine, nothing about the code.
hypothesis.settings.register_profile(
    "tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")

# The files that take longest. Each is one worker's from beginning to end, so none of them may be the last.
LONGEST = (
    "test_crash_matrix",
    "test_short_run",
    "test_rolling_restart",
    "test_up",
    "test_bad_input",
    "test_schedules",
    "test_page_in_browser",
    "test_work",
    "test_gateway_answers",
    "test_metrics",
    "test_streaming",
    "test_installing",
    "test_up_durability",
    "test_drain",
    "test_nats_restart",
    "test_sandbox_limits",
    "test_commands",
    "test_two_runners",
    "test_prometheus",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; the others stay in the order that chance has given them."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))

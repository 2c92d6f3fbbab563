"""What every test gets. A fixture that one folder uses belongs into that folder's own conftest.

The order is random: the seed is in the header of each run, and `pytest --randomly-seed=SEED` repeats it.
"""

import hypothesis

# How fast examples are made and tried says something about the machine, nothing about the code.
hypothesis.settings.register_profile(
    "tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")

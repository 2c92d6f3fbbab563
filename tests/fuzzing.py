"""How much chance a run of the suite may use: little and always the same, or much and new each time."""

import os
import secrets

from hypothesis import settings

__all__ = ["BUDGET", "LONG", "SEED"]

LONG = os.environ.get("QUARTERHOUR_TEST_LONG") == "true"
SEED = secrets.randbits(32) if LONG else 20260101  # of what makes its chance itself
BUDGET = settings(max_examples=3000 if LONG else 40, derandomize=not LONG, database=None, deadline=None)

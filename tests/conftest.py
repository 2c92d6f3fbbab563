"""What every test gets. A fixture that one folder uses belongs into that folder's own conftest.

The order is random: the seed is in the header of each run, and `pytest --randomly-seed=SEED` repeats it.
"""

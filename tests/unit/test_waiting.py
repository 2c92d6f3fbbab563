"""The helpers of the tests."""

import shutil

import pytest

from tests.parts import need
from tests.waiting import eventually, eventually_sync


async def test_the_first_true_value_is_returned() -> None:
    values = [None, 0, 5, 6]

    async def later() -> int | None:
        return values.pop(0)

    assert await eventually(later) == 5
    assert await eventually(lambda: values.pop(0)) == 6
    values += [0, 7]
    assert eventually_sync(lambda: values.pop(0)) == 7


async def test_what_never_comes_fails_with_a_sentence() -> None:
    with pytest.raises(AssertionError, match=r"^Within 0.02 s it never came to be that pigs fly: 0$"):
        await eventually(lambda: 0, deadline_s=0.02, what="pigs fly")
    with pytest.raises(AssertionError, match="pigs fly"):
        eventually_sync(lambda: 0, deadline_s=0.02, what="pigs fly")


def test_a_missing_part_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    assert need("sh", package="dash") == shutil.which("sh")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install xyzzy"):
        need("xyzzy", package="xyzzy")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install xyzzy"):
        need("xyzzy", package="xyzzy")

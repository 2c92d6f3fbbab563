"""The filter of system calls, run step by step for each machine: one alone is ever at hand."""

import struct

import pytest

from runner.sandbox.guarding.confinement import ALLOW, CALLS, REFUSE, X32_BIT, CallFilter

ANOTHER = 4711


def verdict(machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    data = struct.pack("=IIQ6Q", number, CALLS[machine][0] if arch is None else arch, 0, *arguments)
    steps = list(struct.iter_unpack("HBBI", CallFilter(machine)._program.raw[:-1]))
    at = seen = 0
    while True:
        code, then, otherwise, value = steps[at]
        match code:
            case 0x20:  # look
                (seen,) = struct.unpack_from("=I", data, value)
            case 0x15:  # is it equal
                at += then if seen == value else otherwise
            case 0x35:  # is it not less
                at += then if seen >= value else otherwise
            case _:
                assert code == 0x06, "the end"
                return int(value)
        at += 1


@pytest.mark.parametrize("machine", CALLS)
def test_calls_are_allowed_about_oneself_alone(machine: str) -> None:
    for number, own in CALLS[machine][2].items():
        rest = (ANOTHER,) * (6 - len(own))
        assert verdict(machine, number, *own, *rest) == ALLOW
        assert verdict(machine, number, own[0] | 1 << 32, *own[1:], *rest) == ALLOW, "it has 32 bits"
        for index in range(len(own)):
            changed = (*own[:index], ANOTHER, *own[index + 1 :])
            assert verdict(machine, number, *changed, *rest) == REFUSE


@pytest.mark.parametrize("machine", CALLS)
def test_all_other_calls_are_allowed(machine: str) -> None:
    for number in set(range(600)) - set(CALLS[machine][2]):
        assert verdict(machine, number, *(ANOTHER,) * 6) == ALLOW


@pytest.mark.parametrize("machine", CALLS)
def test_calls_in_the_manner_of_another_machine_are_refused(machine: str) -> None:
    for arch in (0x40000003, 0x40000028):  # i386, arm
        assert verdict(machine, 39, *(0,) * 6, arch=arch) == REFUSE
    assert verdict(machine, X32_BIT + 39, *(0,) * 6) == REFUSE

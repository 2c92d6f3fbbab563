"""Turns: functions are served round robin, and a bell is never lost."""

from runner.turns import Turns


def test_functions_take_turns() -> None:
    turns = Turns(["a", "b", "c"])
    turns.ring(["a", "b"])
    assert turns.next() == "a"
    turns.back("a", more=True)
    assert [turns.next(), turns.next(), turns.next()] == ["b", "a", None]


def test_a_function_without_work_leaves_the_line() -> None:
    turns = Turns(["a"])
    turns.ring(["a", "a"])
    assert turns.next() == "a"
    turns.back("a", more=False)
    assert turns.next() is None


def test_a_bell_during_a_pull_is_remembered() -> None:
    turns = Turns(["a"])
    turns.ring(["a"])
    assert turns.next() == "a"
    turns.ring(["a"])
    assert turns.next() is None  # one pull at a time
    turns.back("a", more=False)
    assert turns.next() == "a"


def test_bells_for_unknown_functions_are_passed_over() -> None:
    turns = Turns(["a"])
    turns.ring(["b"])
    assert turns.next() is None


def test_a_withdrawn_function_is_not_served_again() -> None:
    turns = Turns(["a", "b"])
    turns.ring(["a", "b"])
    assert turns.next() == "a"
    turns.serve(["c"])
    turns.back("a", more=True)
    assert turns.next() is None


def test_the_slots_are_shared_among_those_who_wait() -> None:
    turns = Turns("abcd")
    turns.ring("a")
    turns.next()
    assert turns.share(16) == 16
    turns.ring("bcd")
    assert turns.share(16) == 4
    assert turns.share(2) == 1

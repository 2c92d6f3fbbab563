"""Shares: one function's long runs never take the last slot of a runner, short ones may."""

from runner.shares import Shares


def shares(total: int = 16, functions: tuple[str, ...] = ("slow", "other")) -> Shares:
    made = Shares(total)
    made.serve(functions)
    return made


def test_what_is_not_known_to_be_short_leaves_one_slot_in_sixteen() -> None:
    assert shares().left("slow") == 15
    assert shares(32).left("slow") == 30
    assert shares(15).left("slow") == 15  # too few to keep one free


def test_who_was_short_may_have_all_until_it_is_long() -> None:
    some = shares()
    some.ran("slow", 0.01)
    assert some.left("slow") == 16
    some.ran("slow", 0.2)
    assert some.left("slow") == 15


def test_what_a_function_has_counts_until_it_gives_it_back() -> None:
    some = shares()
    some.take("slow", 15)
    assert some.left("slow") == 0
    assert some.left("other") == 15
    some.give_back("slow")
    assert some.left("slow") == 1
    some.give_back("slow", 14)
    assert some.left("slow") == 15


def test_the_only_function_may_have_all() -> None:
    assert shares(functions=("slow",)).left("slow") == 16


def test_what_is_served_no_more_is_forgotten() -> None:
    some = shares()
    some.ran("slow", 0.01)
    some.serve(("other", "third"))
    assert some.left("slow") == 15

"""The transition table: complete, closed, and refusing what it lacks."""

from itertools import product

import pytest

from quarterhour.lifecycle import FINAL, TRANSITIONS, Event, IllegalTransition, State, advance, diagram


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_pair_moves_as_the_table_says_or_raises(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert advance(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransition, match=f"that is {state} cannot be {event}"):
            advance(state, event)


def test_a_final_state_is_never_left() -> None:
    assert not [state for state, _ in TRANSITIONS if state in FINAL]


def test_every_state_leads_to_an_end() -> None:
    ends = set(FINAL)
    for _ in State:
        ends |= {start for (start, _), end in TRANSITIONS.items() if end in ends}
    assert ends == set(State)


def test_the_diagram_shows_every_transition() -> None:
    lines = diagram().splitlines()
    for (start, event), end in TRANSITIONS.items():
        assert f"    {start} --> {end}: {event}" in lines

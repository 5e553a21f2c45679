from __future__ import annotations

from itertools import product

import pytest

from conpool._core.records import AnyEntry, Entry
from conpool._values.states import TRANSITIONS, CircuitState, CloseReason, ConnectionState
from tests.support.shell import make_sub

State = ConnectionState
MOVES = sorted(TRANSITIONS, key=str)
OTHER_MOVES = sorted(set(product(State, State)) - TRANSITIONS, key=str)


def entry_in(state: ConnectionState) -> AnyEntry:
    entry = Entry(1, make_sub(), 0.0)
    entry.state = state
    return entry


@pytest.mark.parametrize(("before", "after"), MOVES)
def test_a_connection_makes_every_move_in_the_table(
    before: ConnectionState, after: ConnectionState
) -> None:
    entry = entry_in(before)
    entry.move(after)
    assert entry.state is after


@pytest.mark.parametrize(("before", "after"), OTHER_MOVES)
def test_a_connection_makes_no_other_move(before: ConnectionState, after: ConnectionState) -> None:
    entry = entry_in(before)
    with pytest.raises(AssertionError, match=f"cannot become {after.value}"):
        entry.move(after)
    assert entry.state is before


def test_every_state_is_reached_from_the_dial_and_leads_to_the_end() -> None:
    reached, doomed = {State.CONNECTING}, {State.CLOSED}
    for _ in State:
        reached |= {after for before, after in TRANSITIONS if before in reached}
        doomed |= {before for before, after in TRANSITIONS if after in doomed}
    assert reached == doomed == set(State)


def test_nothing_comes_back_from_the_end_or_is_lent_while_it_closes() -> None:
    assert not [after for before, after in TRANSITIONS if before is State.CLOSED]
    assert [after for before, after in TRANSITIONS if before is State.CLOSING] == [State.CLOSED]


def test_nothing_is_dialled_twice() -> None:
    assert not [before for before, after in TRANSITIONS if after is State.CONNECTING]


@pytest.mark.parametrize("kind", [CircuitState, CloseReason, ConnectionState])
def test_values_are_words_for_people(kind: type[CloseReason]) -> None:
    for member in kind:
        assert member.value == member.name.lower().replace("_", " ")

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import product
from typing import Any, get_args

import pytest
import trio
from trio.testing import MockClock

from conpool._connection.idle_watch import IdleWatch
from conpool._core.core import Core
from conpool._core.records import AnyEntry, Entry
from conpool._pool.pool import ConnectionPool
from conpool._values.states import (
    POOL_TRANSITIONS,
    TRANSITIONS,
    AcquirePhase,
    CircuitState,
    CloseReason,
    ConnectionState,
    DialPhase,
    PoolState,
)
from tests.support.pools import Network, hold, make_pool, settle
from tests.support.shell import HERE, make_sub

State = ConnectionState
MOVES = sorted(TRANSITIONS, key=str)
OTHER_MOVES = sorted(set(product(State, State)) - TRANSITIONS, key=str)


def entry_in(state: ConnectionState) -> AnyEntry:
    entry: AnyEntry = Entry(1, make_sub(), 0.0)
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


PoolMoves = set[tuple[PoolState, PoolState]]


@pytest.fixture
def pool_moves(monkeypatch: pytest.MonkeyPatch) -> PoolMoves:
    """Every change of state that any pool makes from here on."""
    moves: PoolMoves = set()
    slot: Any = Core.__dict__["state"]

    def move(core: Core[Any, Any], after: PoolState) -> None:
        before = getattr(core, "state", after)
        if before is not after:
            moves.add((before, after))
        slot.__set__(core, after)

    monkeypatch.setattr(Core, "state", property(slot.__get__, move))
    return moves


async def open_again(pool: ConnectionPool[None]) -> None:
    with pytest.raises(RuntimeError, match="can be opened once"):
        await pool.__aenter__()


async def close(pool: ConnectionPool[None]) -> None:
    await pool.aclose()


async def fork(pool: ConnectionPool[None]) -> None:
    pool._lifecycle.disown()


async def test_a_pool_makes_the_moves_in_its_table_and_no_other(
    pool_moves: PoolMoves, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Whatever a caller asks of it in each of its states."""
    verbs: list[Callable[[ConnectionPool[None]], Awaitable[None]]] = [open_again, close, fork]
    for verb in verbs:
        async with make_pool(Network()) as pool:
            await verb(pool)
        async with trio.open_nursery() as nursery, make_pool(Network()) as pool:
            await nursery.start(hold, pool, HERE, 1.0)
            nursery.start_soon(pool.aclose)
            await settle()
            assert pool._core.state is PoolState.DRAINING
            await verb(pool)
        await verb(pool)
    await make_pool(Network()).aclose()
    pool = make_pool(Network())
    monkeypatch.setattr(IdleWatch, "open", refuse)
    with pytest.raises(OSError, match="no descriptor"):
        await pool.__aenter__()
    assert pool.closed
    assert pool_moves == POOL_TRANSITIONS


def refuse(*args: object) -> None:
    raise OSError("no descriptor")


def test_a_closed_pool_is_closed_for_good_and_only_a_new_one_is_opened() -> None:
    assert not [after for before, after in POOL_TRANSITIONS if before is PoolState.CLOSED]
    assert [before for before, after in POOL_TRANSITIONS if after is PoolState.OPEN] == [
        PoolState.NEW
    ]


def test_the_phases_of_a_dial_are_none_of_an_acquire() -> None:
    assert not set(get_args(DialPhase)) & set(get_args(AcquirePhase))


@pytest.mark.parametrize("kind", [CircuitState, CloseReason, ConnectionState, PoolState])
def test_values_are_words_for_people(kind: type[CloseReason]) -> None:
    for member in kind:
        assert member.value == member.name.lower().replace("_", " ")

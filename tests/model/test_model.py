"""Every state of small worlds, and every law in each; the worlds are in `tests.model.worlds`.

The laws: what `tests.support.invariants` says of every state, what `tests.support.shell` sees for
itself at every hand-over, and that whoever waits is served in the end (`tests.model.search`). With
`CONPOOL_LARGE_MODEL=1` in the environment larger worlds are searched too, for some twenty minutes.
"""

from __future__ import annotations

import os
import sys
from typing import Any, TypeAlias

import pytest

from conpool._core import (
    chores as chores_module,
    dials as dials_module,
    ending as ending_module,
    pool_limit,
    refusing as refusing_module,
    serving as serving_module,
    sharing as sharing_module,
    warming as warming_module,
)
from conpool._core.balancer import Balancer
from conpool._core.checks import Checks
from conpool._core.chores import Chores
from conpool._core.circuit import Circuit
from conpool._core.core import Core
from conpool._core.dials import Dials
from conpool._core.ending import Ending
from conpool._core.failures import Failures
from conpool._core.gate import Gate
from conpool._core.heap import Heap
from conpool._core.ledger import Ledger
from conpool._core.orders import Orders
from conpool._core.pool_limit import PoolLimit
from conpool._core.queue import Queue
from conpool._core.records import (
    AnyEntry,
    AnyWaiter,
    Chore,
    Entry,
    Group,
    Lease,
    Outage,
    SubPool,
    Waiter,
    Warmer,
)
from conpool._core.refusing import Refusing
from conpool._core.serving import Serving
from conpool._core.sharing import Sharing
from conpool._core.shedding import Codel
from conpool._core.timetable import Timetable
from conpool._core.warming import Warming
from conpool._values.states import CloseReason
from tests.model import World, explore
from tests.model.groups import GROUPS, GROUPS_IN_PIECES
from tests.model.search import CounterExample
from tests.model.state import freeze, thaw
from tests.model.world import happen
from tests.model.worlds import IN_PIECES, LARGE, LARGE_IN_PIECES, PAIR, SMALL
from tests.support import shell as shell_module

AnyCore: TypeAlias = Core[Any, Any]

OVERTAKES = 2
"""As good as `MAX_OVERTAKES` to see that there is a bound, and fewer states."""

# The large ones take minutes: `CONPOOL_LARGE_MODEL=1 python -m pytest tests/model/test_model.py`.
WORLDS = [  # each takes seconds, but the machine may be busy
    pytest.param(world, id=world.name, marks=pytest.mark.timeout(300))
    for world in (*SMALL, *GROUPS)
]
IN_SMALLEST_PIECES = [*IN_PIECES, *GROUPS_IN_PIECES]
if "CONPOOL_LARGE_MODEL" in os.environ:
    IN_SMALLEST_PIECES += LARGE_IN_PIECES
    WORLDS += [
        pytest.param(world, id=world.name, marks=pytest.mark.timeout(3600)) for world in LARGE
    ]


@pytest.mark.parametrize("world", WORLDS)
def test_every_law_holds_in_every_state(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """G1, G2, G10, G12, G13, G21, G24, G30, and that nobody waits for ever."""
    monkeypatch.setattr(pool_limit, "MAX_OVERTAKES", OVERTAKES)
    report = explore(world)
    with capsys.disabled():
        print(f"\n  {report}", end="")
    assert report.states >= world.at_least
    assert report.passed == (OVERTAKES if _can_pass(world) else 0)


PIECES = (
    chores_module,
    dials_module,
    ending_module,
    refusing_module,
    serving_module,
    sharing_module,
    warming_module,
)
"""The modules that do long work in pieces."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("world", IN_SMALLEST_PIECES, ids=lambda world: world.name)
def test_every_law_holds_when_work_is_done_in_the_smallest_pieces(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """G12, G17, G24, G30, G34: anything may happen between two pieces."""
    monkeypatch.setattr(pool_limit, "MAX_OVERTAKES", OVERTAKES)
    for module in PIECES:
        monkeypatch.setattr(module, "PIECE", 1)
    report = explore(world)
    with capsys.disabled():
        print(f"\n  in pieces: {report}", end="")
    assert report.states >= world.at_least


def test_all_who_work_in_pieces_are_known() -> None:
    found = {
        name
        for name, module in sys.modules.items()
        if name.startswith("conpool._core.") and "PIECE" in vars(module)
    }
    assert found == {module.__name__ for module in PIECES}


def _can_pass(world: World) -> bool:
    """Whether one of two endpoints can be served again and again while the other needs slots."""
    limit = world.settings.get("max_connections")
    return world.endpoints > 1 and limit is not None and world.waiters > 1


# ── the machinery itself ────────────────────────────────────────────────────────

TINY = World(name="tiny", settings=PAIR, waiters=2, happens=frozenset({"discarded"}))


def test_a_broken_law_is_shown_with_the_shortest_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget_to_pump(self: AnyCore, entry: AnyEntry, now: float) -> None:
        self._ledger.strike_off(entry)
        entry.sub.counters.count_closed(CloseReason.ERROR)
        self.touched.clear()

    monkeypatch.setattr(Core, "closed", forget_to_pump)
    with pytest.raises(CounterExample, match="G12") as caught:
        explore(TINY)
    lines = str(caught.value).splitlines()
    steps = [line for line in lines if line[:1].isdigit()]
    assert [step.split(" ", 1)[1] for step in steps] == [
        "ask (0)",
        "ask (0)",
        "dialled (0)",
        "ask (0)",
        "discarded (0)",
    ]


def test_a_state_without_a_way_on_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell_module, "check", lambda *_: None)
    monkeypatch.setattr(Dials, "dial_for_waiters", lambda *_: None)
    with pytest.raises(CounterExample, match="somebody waits for ever"):
        explore(TINY)


def test_a_circle_that_nobody_is_served_in_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def close_what_is_dialled(self: AnyCore, entry: AnyEntry, now: float) -> None:
        self._ledger.activate(entry)
        self._ledger.dial_over(entry)
        entry.sub.counters.total_created += 1
        self._ledger.condemn(entry, CloseReason.SURPLUS, gracefully=True)

    monkeypatch.setattr(Core, "dialled", close_what_is_dialled)
    world = World(name="tiny", settings=PAIR, waiters=1, is_courteous=True)
    with pytest.raises(CounterExample, match="this may go on for ever"):
        explore(world)


def test_a_copy_shares_nothing_that_changes() -> None:
    shell = TINY.begin()
    for event in [("ask", 0), ("ask", 0), ("dialled", 0)]:
        happen(shell, event)
    copy = thaw(freeze(shell))
    before = TINY.name_of(shell)
    assert TINY.name_of(copy) == before
    happen(copy, ("dialled", 0))
    assert TINY.name_of(copy) != before
    assert TINY.name_of(shell) == before


def test_the_order_of_connections_and_the_time_are_no_part_of_a_state() -> None:
    one, other = TINY.begin(), TINY.begin()
    for event in [("ask", 0), ("ask", 0), ("dialled", 0), ("dialled", 0), ("released", 0)]:
        happen(one, event)
    other.advance(100.0)
    for event in [("ask", 0), ("ask", 0), ("dialled", 1), ("dialled", 0), ("released", 1)]:
        happen(other, event)
    assert TINY.name_of(one) == TINY.name_of(other)


# What the name of a state has, and what it leaves out because nothing depends on it, or because it
# follows from the rest. A new field must be looked at and entered here; one that matters belongs in
# `tests.model.state`.
NAMED: dict[type, str] = {
    Entry: "arrivals awaited_by capacity checked_at created_at doomed expires_at generation holders"
    " idle_since is_checking is_given_up is_resetting leases link state uses was_idle",
    Lease: "",
    Waiter: "coming deadline fresh is_timed number overtaken subs",
    Warmer: "target",
    SubPool: "bad_news chores claim config gate idle is_resting is_straight is_strict leaving limit"
    " looks outage per_dial queue reserved resized roomy shares short_lives silent used_at wanted"
    " warm_not_before warmers",
    Chore: "do entries",
    Outage: "arrivals warmers",
    Queue: "codel",
    Group: "turn",
    Balancer: "_turns",
    Heap: "_left _rows",
    Gate: "_failures _not_before circuit is_in_doubt is_told_to_pause is_trusted is_unhealthy"
    " outage_since",
    Circuit: "_failures _is_reported _opened_at _tries_at state",
    Codel: "_ends_at _least _turned_at stands",
    Refusing: "",
    Core: "balancer pool_limit state subs timetable",
    PoolLimit: "cold limit",
    Sharing: "",
    Ledger: "",
    Dials: "",
    Serving: "",
    Warming: "",
    Orders: "",
    Chores: "",
    Checks: "",
    Failures: "",
    Ending: "_left",
    Timetable: "_rows",
}
LEFT_OUT: dict[type, str] = {
    Entry: "address affinity check id idled_unused lapses_at reason sub",
    Lease: "entry holder since",
    Waiter: "entry error group had_turn outcome queued reasons row since slots task",
    Warmer: "error queued sub task",
    SubPool: "acquire_timeout check_after checking closing connecting counters due_at"
    " endpoint generation groups is_plain is_scarce known max_connecting max_idle"
    " max_idle_time max_uses max_waiting min_idle outgoing resets resetting row shares_limit"
    " spare_checks spare_dials survivors timed void waiting",
    Chore: "",
    Outage: "error",
    Queue: "_aside _grouped bars_groups fresh_line line rows",
    Group: "subs target",
    Balancer: "_find_subpool",
    Heap: "_count live",
    Gate: "_random is_paused last_error",
    Circuit: "_breaker _tell trials",
    Codel: "_interval _target",
    Refusing: "_ledger",
    Core: "_chores _config _dials _is_plain _ledger _overrides _random _refusing _resets _serving"
    " _shares _warming checks effects ending failures is_checked may_queue memory orders pop_known"
    " pop_newest queued sharing ticked touched",
    PoolLimit: "_idle _latest _line _put_back _put_back_rows _rows _spare closing draining"
    " extra is_limited wanted",
    Sharing: "_dials _ledger _pool_limit _refusing",
    Ledger: "_dials arrivals effects pool_limit timetable touched",
    Dials: "_balancer _ledger _pool_limit _refusing _timetable _warming",
    Serving: "_dials _ledger _pool _pool_limit _refusing _sharing",
    Warming: "_ledger _pool_limit",
    Orders: "_chores _failures _ledger _pool_sizes retiring",
    Chores: "_ledger retiring",
    Checks: "_chores _ledger _warming",
    Failures: "_chores _ledger",
    Ending: "_chores _ledger",
    Timetable: "next_at",
}


def fields_of(kind: type) -> set[str]:
    slots = vars(kind).get("__slots__")
    if slots is not None:
        return set(slots)
    assert kind is Waiter
    waiter: AnyWaiter = Waiter((), 0.0, 0.0, False)
    return {name for name in vars(kind) if not name.startswith("_")} | set(vars(waiter))


@pytest.mark.parametrize("kind", NAMED)
def test_every_field_was_thought_of_when_states_are_told_apart(kind: type) -> None:
    assert fields_of(kind) == set(f"{NAMED[kind]} {LEFT_OUT[kind]}".split())

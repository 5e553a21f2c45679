"""Random walks over the whole pool, its shell included, in simulated time.

A plan is a list of deeds, drawn by Hypothesis: callers come, are cancelled and give back in every
way that there is; servers are late, hang up, speak unasked, refuse; the clock moves; operators
clear, drain at once or slowly, pause, warm, set limits. A deed that is impossible in its turn is
left out, so that a plan from which something is taken away stays a plan. Some deeds wait until
every task is blocked before the next one, others do not: then what they cause happens in the same
moment, in an order that is drawn, too.

Who callers and servers are, and what must hold, is in `tests.support.walked`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final, TypeAlias, TypeVar, final

import pytest
import trio
from hypothesis import HealthCheck, given, settings, strategies as st

from conpool import CloseReason
from conpool.testing import _run
from tests.support.invariants import show
from tests.support.walked import ENDPOINTS, Ending, Walked, World, done

IS_LARGE = "CONPOOL_LARGE_MODEL" in os.environ
"""More and longer walks, and different each time; else always the same."""

WALKS = settings(
    derandomize=not IS_LARGE,
    max_examples=20_000 if IS_LARGE else 250,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

Plan: TypeAlias = list[tuple[str, int, int, int | None]]
"""What happens, two numbers that choose, and how many ticks pass before the next; None: enough."""
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])

WAYS_TO_END: Final = [
    "fail",
    "fail_and_vouch",
    "discard",
    "ask_and_go",
    "lose_patience",
    "retire",
    "go_without_the_rest",
    "half_close",
    "detach",
]
"""How a caller may give back what must not be lent again; but for the second."""

CONSEQUENCES: Final = [
    *WAYS_TO_END,
    # No name moves in these walks: the servers have no addresses.
    *(f"closed: {reason.value}" for reason in CloseReason if reason is not CloseReason.MOVED),
    *(f"check: {verdict}" for verdict in ("yes", "no", "nothing", "error")),
    "outcome: cancelled",
    "outcome: failed",
    "outcome: no connection",
    "outcome: pool closed",
    "outcome: reused",
    "outcome: served",
    "outcome: timeout",
    "outcome: turned away",
    "outcome: warmed",
    "outcome: would block",
    "patience lost",
]
"""What must have come of it all now and then."""


worlds = st.builds(
    World,
    limit=st.integers(1, 3),
    total=st.sampled_from([None, None, 1, 2, 3, 4]),
    lingers=st.sampled_from([False, False, True]),
    is_checked=st.booleans(),
    end=st.sampled_from(["at rest", "at rest", "amid it all", "aclose", "error", "cancelled"]),
    order=st.integers(0, 999),
    options=st.fixed_dictionaries(
        {},
        optional={
            "max_connecting_per_endpoint": st.just(1),
            "max_connection_uses": st.integers(1, 4),
            "max_connection_lifetime": st.sampled_from([4.0, 9.0]),
            "max_idle_time": st.sampled_from([5.0, 0.0]),
            "max_waiting_per_endpoint": st.just(2),
            "health_check_after": st.just(1.0),
            "health_check_interval": st.just(3.0),
        },
    ),
)


@final
@dataclass(frozen=True)
class Deed:
    """One thing that can happen."""

    name: str
    weight: int
    when: Callable[[Walk], object]


def deed(weight: int, when: Callable[[Walk], object] = lambda _: True) -> Callable[[F], F]:
    """Mark a method of two numbers, which choose among whatever there is to choose."""

    def mark(method: F) -> F:
        DEEDS[method.__name__] = Deed(method.__name__, weight, when)
        return method

    return mark


DEEDS: Final[dict[str, Deed]] = {}


def pick(items: list[T], number: int) -> T:
    return items[number % len(items)]


class Walk(Walked):
    """What can happen to it."""

    seconds_to_pass = 0.0

    @deed(1)
    def let_be(self, which: int, how: int) -> None:
        """Do nothing: the simplest deed, of which plans that fail are full in the end."""

    # ── callers ────────────────────────────────────────────────────────────────────

    @deed(30, when=lambda walk: len(walk.users) < 8)
    def come(self, which: int, how: int) -> None:
        fresh, timeout, way = pick(
            [
                (False, None, "block"),
                (False, None, "acquire"),
                (False, 2.0, "block"),
                (False, None, "block"),
                (True, None, "block"),
                (True, 2.0, "acquire"),
                (False, 0.0, "block"),
            ],
            how,
        )
        self.start_user(pick([*ENDPOINTS], which), fresh=fresh, timeout=timeout, way=way)

    @deed(3, when=lambda walk: len(walk.users) < 8)
    def come_without_waiting(self, which: int, _: int) -> None:
        self.start_user(pick([*ENDPOINTS], which), fresh=False, timeout=None, way="now")

    @deed(4, when=lambda walk: walk.users)
    def cancel(self, which: int, _: int) -> None:
        user = pick(self.users, which)
        self.note(str(user))
        user.scope.cancel()

    @deed(6, when=lambda walk: any(user.waits for user in walk.users))
    def cancel_a_waiter(self, which: int, _: int) -> None:
        user = pick([user for user in self.users if user.waits], which)
        self.note(str(user))
        user.scope.cancel()

    @deed(20, when=lambda walk: walk.find_free())
    def exchange(self, which: int, _: int) -> None:
        self.order(pick(self.find_free(), which), "talk")

    @deed(36, when=lambda walk: walk.find_free())
    def leave(self, which: int, _: int) -> None:
        self.order(pick(self.find_free(), which), "go")

    @deed(16, when=lambda walk: walk.find_free())
    def leave_otherwise(self, which: int, how: int) -> None:
        # What cannot be looked into hides what was left in it, and can be closed only as a whole.
        ways = WAYS_TO_END[:-3] if self.world.lingers else WAYS_TO_END
        self.order(pick(self.find_free(), which), pick(ways, how))

    # ── servers ────────────────────────────────────────────────────────────────────

    @deed(8, when=lambda walk: walk.world.is_checked and not walk.verdicts)
    def doubt(self, which: int, _: int) -> None:
        self.verdicts.append(pick(["no", "nothing", "error"], which))
        self.note(self.verdicts[-1])

    @deed(8)
    def answer_late(self, which: int, how: int) -> None:
        endpoint, delay = pick([*ENDPOINTS], which), pick([0.25, 0.0, 0.25, 3.0, 30.0], how)
        self.network.answer_delay[endpoint] = delay
        self.note(f"{endpoint.host}: {delay} s")

    @deed(5, when=lambda walk: walk.find_peers())
    def hang_up(self, which: int, how: int) -> None:
        peer = pick(self.find_peers(), which)
        number = self.find_id(peer)
        self.causes[number].add(CloseReason.PEER_CLOSED)
        if self.is_at_rest and not self.world.lingers:
            self.spoilt.add(number)
        self.note(f"{number}{' half' if how % 2 else ''}")
        peer.hang_up(half=bool(how % 2))

    @deed(8, when=lambda walk: walk.is_at_rest and not walk.world.lingers and walk.find_idle())
    def speak_unasked(self, which: int, _: int) -> None:
        peer = pick(self.find_idle(), which)
        number = self.find_id(peer)
        self.causes[number].add(CloseReason.UNREAD_DATA)
        self.spoilt.add(number)
        self.note(f"{number}")
        peer.speak()

    @deed(3)
    def answer_the_door(self, which: int, how: int) -> None:
        endpoint = pick([*ENDPOINTS], which)
        accepts, delay = pick(
            [
                (True, 0.0),
                (False, 0.0),
                (True, 0.5),
                (True, 0.0),
                (False, 0.5),
                (True, 0.0),
                (True, math.inf),
            ],
            how,
        )
        self.network.refusing -= {endpoint}
        self.network.refusing |= {endpoint} if not accepts else set()
        self.network.dial_delay[endpoint] = delay
        self.note(f"{endpoint.host}: {'yes' if accepts else 'no'}, after {delay} s")

    @deed(1, when=lambda walk: walk.world.lingers)
    def close_slowly(self, which: int, _: int) -> None:
        self.network.close_delay = pick([0.5, 0.0, math.inf], which)

    # ── operators ──────────────────────────────────────────────────────────────────

    @deed(1)
    def clear(self, which: int, how: int) -> None:
        endpoint = pick([*ENDPOINTS, None], which)
        self.note(f"{endpoint}{', interrupted' if how % 2 else ''}")
        self.forbid(endpoint)
        self.pool.clear(endpoint, interrupt_in_use=bool(how % 2))

    @deed(1, when=lambda walk: len(walk.jobs) < 3)
    def drain(self, which: int, _: int) -> None:
        self.start_job(self.drain_all, pick([*ENDPOINTS, None], which))

    @deed(2, when=lambda walk: len(walk.jobs) < 3)
    def drain_slowly(self, which: int, how: int) -> None:
        over = pick([1.0, 4.0, 0.001, 60.0], how)
        self.start_job(self.drain_over, pick([*ENDPOINTS, None], which), over)

    @deed(1)
    def close_idle(self, which: int, _: int) -> None:
        endpoint = pick([*ENDPOINTS, None], which)
        self.note(str(endpoint))
        idle = [p for p in self.find_idle() if endpoint in {None, p.endpoint}]
        closed = self.pool.close_idle(endpoint)
        assert closed >= len(idle), f"{len(idle)} were idle, {closed} were closed"

    @deed(2, when=lambda walk: len(walk.jobs) < 3)
    def warm(self, which: int, how: int) -> None:
        self.start_job(self.warm_up, pick([*ENDPOINTS], which), 1 + how % 3)

    @deed(4, when=lambda walk: walk.jobs)
    def cancel_a_job(self, which: int, _: int) -> None:
        pick(self.jobs, which).cancel()
        self.note(f"number {which % len(self.jobs)}")

    @deed(1)
    def pause(self, which: int, _: int) -> None:
        endpoint = pick([*ENDPOINTS], which)
        self.note(endpoint.host)
        self.paused.add(endpoint)
        self.pool.pause(endpoint)

    @deed(4, when=lambda walk: walk.paused)
    def resume(self, which: int, _: int) -> None:
        endpoint = pick(sorted(self.paused, key=str), which)
        self.note(endpoint.host)
        self.paused.remove(endpoint)
        self.pool.resume(endpoint)

    @deed(4)
    def set_limit(self, which: int, how: int) -> None:
        endpoint, limit = pick([*ENDPOINTS], which), 1 + how % 4
        self.note(f"{endpoint.host}: {limit}")
        stats = self.pool.stats(endpoint)
        there_are = stats.idle + stats.active + stats.connecting + stats.closing
        self.limits[endpoint] = limit
        self.ceilings[endpoint] = max(limit, there_are)
        self.pool.set_limit(endpoint, limit)

    # ── time ───────────────────────────────────────────────────────────────────────

    @deed(10)
    def let_time_pass(self, which: int, _: int) -> None:
        self.seconds_to_pass = pick([0.25, 1.0, 3.0, 8.0], which)
        self.note(f"{self.seconds_to_pass} s")

    async def pass_time(self) -> None:
        """Go from one moment at which something falls due to the next."""
        while self.seconds_to_pass > 0:
            due = trio.lowlevel.current_statistics().seconds_to_next_deadline
            seconds = min(max(due, 2**-30), self.seconds_to_pass)
            self.clock.jump(seconds)
            self.seconds_to_pass -= seconds
            await self.rest()

    # ── from the beginning to the end ──────────────────────────────────────────────

    async def main(self, plan: Plan) -> None:
        async with trio.open_nursery() as self.nursery:
            self.network.nursery = self.nursery
            trio.lowlevel.add_instrument(self.steps)
            with trio.CancelScope() as scope, suppress(Ending):
                await self.live_through(plan, scope)
            await self.bury()
            self.nursery.cancel_scope.cancel()

    async def live_through(self, plan: Plan, scope: trio.CancelScope) -> None:
        async with self.pool:
            try:
                for name, which, how, ticks in plan:
                    await self.act(DEEDS[name], which, how, ticks)
                await self.rest()
                await self.end(scope)
            finally:
                self.clock.autojump_threshold = 0
                self.ending_at = trio.current_time()

    async def act(self, deed: Deed, which: int, how: int, ticks: int | None) -> None:
        if not deed.when(self):
            return
        done[deed.name] += 1
        if deed.name != "let_be":
            self.log.append(f"{trio.current_time():8.3f} {deed.name}:")
        getattr(self, deed.name)(which, how)
        self.is_at_rest = False
        for _ in range(ticks or 0):
            await trio.lowlevel.cancel_shielded_checkpoint()
        if ticks is None or self.seconds_to_pass:
            await self.rest()
            await self.pass_time()


def find_cause(error: BaseException) -> BaseException:
    """What is in a group beside cancellations."""
    while isinstance(error, BaseExceptionGroup):
        others = [e for e in error.exceptions if not isinstance(e, trio.Cancelled)]
        error = (others or error.exceptions)[0]
    return error


def act_out(world: World, plan: Plan) -> None:
    """Walk once; if something is wrong, say what had happened."""
    walk = Walk(world)
    try:
        _run.run(lambda: walk.main(plan), Random(world.order).shuffle, clock=walk.clock)
    except BaseException as error:  # noqa: BLE001 - it is raised again, without its groups
        cause = find_cause(error)
        cause.add_note("\n".join(walk.log))
        cause.add_note(show(walk.pool._core))
        raise cause from None


names = [found.name for found in DEEDS.values() for _ in range(found.weight)]
plans = st.lists(
    st.tuples(
        st.sampled_from(names),
        st.integers(0, 99),
        st.integers(0, 99),
        st.sampled_from([None, None, None, 0, 1, 1, 2]),
    ),
    min_size=60,  # to make one shorter, things are let be
    max_size=200 if IS_LARGE else 120,
)


@pytest.mark.timeout(36_000 if IS_LARGE else 600)  # what is found must also be made short
def test_long_walks_of_a_whole_pool_keep_to_the_rules(capsys: pytest.CaptureFixture[str]) -> None:
    done.clear()
    WALKS(given(worlds, plans)(act_out))()
    with capsys.disabled():
        print(
            f"\n  {sum(done[name] for name in DEEDS)} deeds, {done['outcome: served']} served",
            end="",
        )
    # Walks that never get anywhere would find everything in order.
    assert min(done[name] for name in DEEDS) >= 10, done
    assert not [name for name in CONSEQUENCES if not done[name]], done

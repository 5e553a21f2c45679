"""What happens at the same moment, in every order in which it can happen.

In each scenario a few actors do their part at the moment `T`, and all orders of all that follows
from it are tried, to the last. After every step the books must balance and nobody may wait for what
is free (G12); afterwards whoever was not cancelled has been served, in the order of arrival (G13).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import conpool
from conpool import _room
from conpool._states import ConnectionState
from conpool.testing import explore_schedules, fixed_order
from tests.support.pools import find_pool_tasks

from .connectors import BareConnector
from .totals import tried
from .world import AWAY, World, config

T = 10.0
LIMIT = 20_000
"""More schedules than any of these scenarios has; one that reaches it has not been explored."""


def explore(scenario: Callable[[], Awaitable[object]]) -> None:
    schedules = explore_schedules(scenario, limit=LIMIT)
    tried["schedules"] += schedules
    assert 1 < schedules < LIMIT


class Stage:
    """A world in which a few things happen at `T`, and before and after in a fixed order."""

    def __init__(self, settings: conpool.PoolConfig, **options: Any) -> None:
        lingers = options.pop("lingers", False)
        self.connector = BareConnector(lingers=lingers, delay=options.pop("delay", 0.0))
        self.world = World(settings, connector=self.connector, **options)
        self.pool = self.world.pool
        self.scopes: dict[str, trio.CancelScope] = {}
        self.told: dict[str, Exception] = {}
        """What came of those who were not served."""
        self._order = ExitStack()
        self._is_over = False
        self._end_at = T + 0.5

    @asynccontextmanager
    async def set(self, *, closes: bool = False) -> AsyncIterator[Stage]:
        """Prepare in the block; at its end comes `T`."""
        with self._order:
            self._order.enter_context(fixed_order())
            async with self._open_until_closed() if closes else self.world.opened():
                yield self
                await trio.sleep_until(T - 0.5)
                self._order.close()
                await trio.sleep_until(self._end_at)
                self._order.enter_context(fixed_order())

    @asynccontextmanager
    async def _open_until_closed(self) -> AsyncIterator[None]:
        """Open the pool; that it is closed is an actor's part."""
        async with self.pool:
            with self.world.watched():
                trio.lowlevel.add_instrument(_Curtain(self._end_of_play))
                async with trio.open_nursery() as self.world.nursery:
                    yield
            assert self.pool.closed
            assert self.connector.live == 0
            assert not find_pool_tasks()
        self.world.assert_nothing_left()

    def _end_of_play(self) -> None:
        """In which order the pool's own tasks end, once all is decided, shows nothing new."""
        if not self._is_over and self.pool._lifecycle._host.cancel_called:
            self._is_over = True
            self._order.enter_context(fixed_order())

    # ── actors ──────────────────────────────────────────────────────────────────

    def at(self, act: Callable[[], object], moment: float = T) -> None:
        """Have something done at `T`."""

        async def actor() -> None:
            await trio.sleep_until(moment)
            act()

        self.world.nursery.start_soon(actor, name=getattr(act, "__name__", "actor"))

    def comes(self, name: str, moment: float = T, **options: Any) -> None:
        """Have somebody come at `T`, take a connection and give it back."""

        async def come() -> None:
            await trio.sleep_until(moment)
            await self.take(name, **options)

        self.world.nursery.start_soon(come, name=name)

    async def waits(self, name: str, **options: Any) -> None:
        """Have somebody come now, who waits until `T`."""
        self.world.nursery.start_soon(lambda: self.take(name, **options), name=name)
        await wait_all_tasks_blocked()

    def cancel(self, name: str) -> None:
        """Have somebody cancelled at `T`."""
        self.at(lambda: self.scopes[name].cancel())

    def cancel_at(self, name: str) -> None:
        """Have somebody cancelled at `T` who only comes then."""
        self.scopes[name] = trio.CancelScope()
        self.cancel(name)

    def closes(self, moment: float = T) -> None:
        """Have the pool closed; once that is done, nothing is left."""

        async def close() -> None:
            await trio.sleep_until(moment)
            await self.pool.aclose()
            assert self.connector.live == 0

        self.world.nursery.start_soon(close, name="close")

    def warms(self, name: str, count: int) -> None:
        async def warm() -> None:
            with trio.CancelScope() as self.scopes[name]:
                await self.pool.warm(self.world.endpoint, count)

        self.world.nursery.start_soon(warm, name=name)

    def extend(self, seconds: float) -> None:
        """Explore for so long."""
        self._end_at = T + seconds

    async def lend(self, endpoint: conpool.AnyEndpoint | None = None) -> conpool.Connection[None]:
        """Have a connection lent, to be given back by an actor."""
        conn = await self.pool.acquire(endpoint or self.world.endpoint)
        self.world.held.add(conn.id)
        return conn

    def releases(self, conn: conpool.Connection[None], how: str = "release") -> None:
        def release() -> None:
            self.world.held.discard(conn.id)
            getattr(self.pool, how)(conn)

        self.at(release)

    async def take(self, name: str, **options: Any) -> None:
        """Take a connection, and give it back a step later."""
        world = self.world
        endpoint = options.pop("endpoint", world.endpoint)
        scope = self.scopes.setdefault(name, trio.CancelScope())
        with scope, self._telling(name):
            async with self.pool.connection(endpoint, **options) as conn:
                world.log.append((name, trio.current_time()))
                assert conn.id not in world.held, f"{name} got what another has (G2)"
                assert conn.id not in world.spoilt, f"{name} got what must not be lent"
                world.held.add(conn.id)
                try:
                    await trio.lowlevel.checkpoint()
                finally:
                    world.held.discard(conn.id)

    @contextmanager
    def _telling(self, name: str) -> Iterator[None]:
        try:
            yield
        except (conpool.AcquireTimeout, conpool.ConnectError, conpool.PoolClosed) as error:
            self.told[name] = error
        except trio.ClosedResourceError as error:
            assert self.pool.closed
            self.told[name] = error

    # ── what must hold ──────────────────────────────────────────────────────────

    def assert_served(self, *names: str, perhaps: tuple[str, ...] = ()) -> None:
        """These were served, in this order; and nobody else but those who may have been."""
        served = [name for name, _ in self.world.log if name not in perhaps]
        assert served == list(names), self.world.log

    def assert_all_served(self, *names: str, perhaps: tuple[str, ...] = ()) -> None:
        """Where there is room for several, who comes first can be seen by the books alone."""
        served = {name for name, _ in self.world.log} - set(perhaps)
        assert served == set(names), self.world.log

    def assert_all_told(self, *names: str) -> None:
        """Each was served, or heard that the pool is closed."""
        served = {name for name, _ in self.world.log}
        told = {n for n, error in self.told.items() if isinstance(error, conpool.PoolClosed)}
        assert set(names) <= served | told, (served, self.told)

    def assert_before(self, name: str, *others: str) -> None:
        served = [name for name, _ in self.world.log]
        for other in others:
            assert served.index(name) < served.index(other), self.world.log


class _Curtain(trio.abc.Instrument):
    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._look()


KINDS_OF_END = pytest.mark.parametrize(
    ("how", "lingers"), [("release", False), ("discard", False), ("discard", True)]
)


# ── release, cancellation, newcomer ─────────────────────────────────────────────


@KINDS_OF_END
def test_release_against_cancel_against_new_acquire(how: str, lingers: bool) -> None:
    """aiohttp #9670: the woken waiter is cancelled and swallows the wake-up; #4936: a newcomer barges."""

    async def scenario() -> None:
        stage = Stage(config(1), lingers=lingers)
        async with stage.set():
            lease = await stage.lend()
            await stage.waits("first")
            await stage.waits("second")
            stage.releases(lease, how)
            stage.cancel("first")
            stage.comes("newcomer")
            stage.comes("another")
        stage.assert_served("second", perhaps=("first", "newcomer", "another"))
        stage.assert_before("second", "newcomer", "another")

    explore(scenario)


@KINDS_OF_END
def test_two_releases_against_cancels(how: str, lingers: bool) -> None:
    async def scenario() -> None:
        stage = Stage(config(2), lingers=lingers)
        async with stage.set():
            leases = [await stage.lend(), await stage.lend()]
            await stage.waits("first")
            await stage.waits("second")
            for lease in leases:
                stage.releases(lease, how)
            stage.cancel("first")
        stage.assert_served("second", perhaps=("first",))

    explore(scenario)


def test_release_against_a_waiter_for_a_new_one() -> None:
    async def scenario() -> None:
        stage = Stage(config(1))
        async with stage.set():
            lease = await stage.lend()
            await stage.waits("fresh", fresh=True)
            await stage.waits("second")
            stage.releases(lease)
            stage.cancel("second")
            stage.comes("newcomer")
        stage.assert_served("fresh", "newcomer", perhaps=("second",))

    explore(scenario)


# ── dials ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("limit", [1, 2])
def test_dial_against_the_cancellation_of_its_waiter(limit: int) -> None:
    """httpcore #1093: the slot is gone for good; psycopg #1275: handed to one who is cancelled."""

    async def scenario() -> None:
        stage = Stage(config(limit), delay=1.0)
        async with stage.set():
            await trio.sleep_until(T - 1)
            await stage.waits("first")
            await stage.waits("second")
            stage.cancel("first")
            stage.comes("newcomer")
        if limit == 1:
            stage.assert_served("second", "newcomer", perhaps=("first",))
        else:
            stage.assert_all_served("second", "newcomer", perhaps=("first",))

    explore(scenario)


def test_failing_dial_against_the_cancellation_of_its_waiter() -> None:
    """asyncpg #1269, generic-connection-pool 0.8: what fails and is cancelled at once is counted twice, or never."""

    async def scenario() -> None:
        stage = Stage(config(1), delay=1.0)
        async with stage.set():
            await trio.sleep_until(T - 1)
            stage.connector.refuses = True
            await stage.waits("first")
            await stage.waits("second")
            stage.cancel("first")
            stage.comes("newcomer")
            stage.at(stage.connector.accept, T + 0.001)
        stage.assert_served("second", "newcomer")

    explore(scenario)


def test_dial_against_release_against_cancel() -> None:
    """The waiter takes whichever comes first, and the other is nobody's loss."""

    async def scenario() -> None:
        stage = Stage(config(2), delay=1.0)
        async with stage.set():
            lease = await stage.lend()
            await trio.sleep_until(T - 1)
            await stage.waits("first")
            stage.releases(lease)
            stage.cancel("first")
            stage.comes("newcomer")
        stage.assert_all_served("newcomer", perhaps=("first",))

    explore(scenario)


# ── time ────────────────────────────────────────────────────────────────────────


@KINDS_OF_END
@pytest.mark.parametrize("has_own_deadline", [True, False])
def test_time_out_against_hand_over(how: str, lingers: bool, has_own_deadline: bool) -> None:
    """vitess #20308, poolboy #70: handed to a waiter whose time is up."""

    async def scenario() -> None:
        stage = Stage(config(1, acquire_timeout=5.0), lingers=lingers)
        async with stage.set():
            lease = await stage.lend()
            await trio.sleep_until(T - 5)
            await stage.waits("first", timeout=5.0 if has_own_deadline else None)
            await stage.waits("second", timeout=8.0)
            stage.releases(lease, how)
            stage.comes("newcomer", timeout=8.0)
        stage.assert_served("second", "newcomer", perhaps=("first",))

    explore(scenario)


@pytest.mark.parametrize("end", ["lifetime", "idle time"])
def test_expiry_against_acquire_against_the_reaper(end: str) -> None:
    """What is too old at `T` is lent to nobody, and closed once."""

    async def scenario() -> None:
        ages = (
            {"max_connection_lifetime": T - 1.0, "lifetime_jitter": 0.0}
            if end == "lifetime"
            else {"max_idle_time": T - 1.0}
        )
        stage = Stage(config(1, **ages, reap_interval=T))
        async with stage.set():
            await trio.sleep_until(1.0)
            lease = await stage.lend()
            stage.world.spoilt.add(lease.id)
            stage.world.held.clear()
            stage.pool.release(lease)
            stage.comes("first")
            stage.comes("second")
        stage.assert_all_served("first", "second")

    explore(scenario)


def test_expiry_against_hand_over() -> None:
    async def scenario() -> None:
        ages = {"max_connection_lifetime": T - 1.0, "lifetime_jitter": 0.0}
        stage = Stage(config(1, **ages, reap_interval=T))
        async with stage.set():
            await trio.sleep_until(1.0)
            lease = await stage.lend()
            stage.world.spoilt.add(lease.id)
            await stage.waits("first")
            await stage.waits("second")
            stage.releases(lease)
            stage.cancel("first")
            stage.comes("newcomer")
        stage.assert_served("second", "newcomer", perhaps=("first",))

    explore(scenario)


# ── clear ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("interrupt", [False, True])
@pytest.mark.parametrize("source", ["dial", "release"])
def test_clear_against_dial_and_release(source: str, interrupt: bool) -> None:
    """G24: what is handed over after `clear` has returned was opened after it, too."""

    async def scenario() -> None:
        stage = Stage(config(1), delay=1.0)

        def clear() -> None:
            # What was handed over a moment before belongs to its new owner, who has not seen it yet.
            stage.world.spoilt |= {
                entry.id
                for sub in stage.pool._core.subs.values()
                for entry in sub.capacity.borrowers
                if interrupt or entry.state is not ConnectionState.ACTIVE
            }
            stage.pool.clear(interrupt_in_use=interrupt)

        async with stage.set():
            if source == "release":
                lease = await stage.lend()
                stage.releases(lease)
            await trio.sleep_until(T - 1)
            await stage.waits("first")
            await stage.waits("second")
            stage.at(clear)
            stage.comes("newcomer")
            stage.extend(5.0)
        stage.assert_served("first", "second", "newcomer")

    explore(scenario)


# ── the whole pool ──────────────────────────────────────────────────────────────


@KINDS_OF_END
def test_close_against_release_against_cancel_against_acquire(how: str, lingers: bool) -> None:
    """httpcore: after `aclose` a queued request dials on the closed pool."""

    async def scenario() -> None:
        stage = Stage(config(1), lingers=lingers)
        async with stage.set(closes=True):
            lease = await stage.lend()
            await stage.waits("first")
            stage.releases(lease, how)
            stage.closes()
            stage.cancel("first")
            stage.comes("newcomer")
        stage.assert_all_told("newcomer")

    explore(scenario)


@pytest.mark.parametrize("lingers", [False, True])
def test_close_against_dial_against_cancel(lingers: bool) -> None:
    async def scenario() -> None:
        stage = Stage(config(1), delay=1.0, lingers=lingers)
        async with stage.set(closes=True):
            await trio.sleep_until(T - 1)
            await stage.waits("first")
            await stage.waits("second")
            stage.closes()
            stage.cancel("first")
        stage.assert_all_told("second")

    explore(scenario)


def test_close_against_dial_against_acquire() -> None:
    async def scenario() -> None:
        stage = Stage(config(1), delay=1.0, lingers=True)
        async with stage.set(closes=True):
            await trio.sleep_until(T - 1)
            await stage.waits("first")
            stage.closes()
            stage.comes("newcomer")
        stage.assert_all_told("first", "newcomer")

    explore(scenario)


def test_close_against_close_against_time_out_against_release() -> None:
    async def scenario() -> None:
        stage = Stage(config(1), lingers=True)
        async with stage.set(closes=True):
            lease = await stage.lend()
            await trio.sleep_until(T - 5)
            await stage.waits("first", timeout=5.0)
            stage.closes()
            stage.closes()
            stage.releases(lease)
        assert stage.connector.live == 0

    explore(scenario)


def test_close_against_the_end_of_its_grace() -> None:
    """The lease ends in the moment in which it would be closed under its user."""

    async def scenario() -> None:
        stage = Stage(config(2, shutdown_grace=5.0), lingers=True)
        async with stage.set(closes=True):
            leases = [await stage.lend(), await stage.lend()]
            await trio.sleep_until(T - 5)
            stage.closes(T - 5)
            await stage.waits("first")
            for lease in leases:
                stage.releases(lease)
        stage.assert_all_told("first")

    explore(scenario)


@pytest.mark.parametrize("overtakes", [0, 8])
@pytest.mark.parametrize("lingers", [False, True])
def test_the_limit_of_the_pool_with_two_endpoints(
    monkeypatch: pytest.MonkeyPatch, overtakes: int, lingers: bool
) -> None:
    """PgBouncer #131: nobody starves beside a busy neighbour, whether the slot changes hands or not."""
    monkeypatch.setattr(_room, "MAX_OVERTAKES", overtakes)

    async def scenario() -> None:
        stage = Stage(config(1, max_connections=1), lingers=lingers)
        async with stage.set():
            lease = await stage.lend()
            await stage.waits("away", endpoint=AWAY)
            await stage.waits("home")
            stage.releases(lease)
            stage.cancel("home")
            stage.comes("newcomer", endpoint=AWAY)
        stage.assert_all_served("away", "newcomer", perhaps=("home",))
        stage.assert_before("away", "newcomer")

    explore(scenario)


def test_an_idle_connection_between_two_endpoints() -> None:
    """Lent again here, or closed to make room there; and then the other way round."""

    async def scenario() -> None:
        stage = Stage(config(1, max_connections=1), lingers=True)
        async with stage.set():
            lease = await stage.lend()
            stage.world.held.clear()
            stage.pool.release(lease)
            stage.comes("home")
            stage.comes("away", endpoint=AWAY)
            stage.comes("another", endpoint=AWAY)
        stage.assert_all_served("home", "away", "another")

    explore(scenario)


def test_two_endpoints_whose_waiters_are_cancelled() -> None:
    async def scenario() -> None:
        stage = Stage(config(2, max_connections=2))
        async with stage.set():
            leases = [await stage.lend(), await stage.lend(AWAY)]
            await stage.waits("away", endpoint=AWAY)
            await stage.waits("home")
            for lease in leases:
                stage.releases(lease)
            stage.cancel("away")
            stage.comes("newcomer", endpoint=AWAY)
        stage.assert_all_served("home", "newcomer", perhaps=("away",))

    explore(scenario)


# ── warmth, checks, limits ──────────────────────────────────────────────────────


@pytest.mark.parametrize("limit", [1, 2])
def test_warmth_against_waiters(limit: int) -> None:
    """What is kept warm never goes before somebody who waits."""

    async def scenario() -> None:
        stage = Stage(config(limit, min_idle_per_endpoint=1, reap_interval=T))
        async with stage.set():
            leases = [await stage.lend() for _ in range(limit)]
            await stage.waits("first")
            stage.releases(leases[0], "discard")
            stage.cancel("first")
            stage.comes("newcomer")
            if limit == 2:
                stage.releases(leases[1])
        stage.assert_all_served("newcomer", perhaps=("first",))

    explore(scenario)


def test_warming_against_waiters_against_cancel() -> None:
    async def scenario() -> None:
        stage = Stage(config(2), delay=1.0)
        async with stage.set():
            await trio.sleep_until(T - 1)
            stage.warms("warming", 2)
            await wait_all_tasks_blocked()
            await stage.waits("first")
            stage.cancel("first")
            stage.cancel("warming")
            stage.comes("newcomer")
        stage.assert_all_served("newcomer", perhaps=("first",))

    explore(scenario)


@pytest.mark.parametrize("answer", [True, False])
def test_a_health_check_against_another_waiter(answer: bool) -> None:
    """Whoever has its check fail has had its turn: it goes before those who came later."""

    async def answers(_: conpool.Connection[None]) -> bool:
        await trio.sleep_until(T)
        return answer

    async def scenario() -> None:
        stage = Stage(config(1, health_check_timeout=60.0), health_check=answers)
        async with stage.set():
            lease = await stage.lend()
            stage.world.held.clear()
            stage.pool.release(lease)
            await stage.waits("first")
            await stage.waits("second")
            stage.cancel("second")
            stage.comes("newcomer")
        stage.assert_served("first", "newcomer", perhaps=("second",))

    explore(scenario)


@pytest.mark.parametrize("answer", [True, False])
def test_a_health_check_against_the_cancellation_of_its_caller(answer: bool) -> None:
    async def answers(_: conpool.Connection[None]) -> bool:
        await trio.sleep_until(T)
        return answer

    async def scenario() -> None:
        stage = Stage(config(1, health_check_timeout=60.0), health_check=answers)
        async with stage.set():
            lease = await stage.lend()
            stage.world.held.clear()
            stage.pool.release(lease)
            await stage.waits("first")
            await stage.waits("second")
            stage.cancel("first")
            stage.comes("newcomer")
        stage.assert_served("second", "newcomer", perhaps=("first",))

    explore(scenario)


def test_a_check_in_the_background_against_acquire() -> None:
    async def answers(_: conpool.Connection[None]) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    async def scenario() -> None:
        settings = config(1, health_check_interval=1.0, reap_interval=T, health_check_after=60.0)
        stage = Stage(settings, health_check=answers)
        async with stage.set():
            lease = await stage.lend()
            stage.world.held.clear()
            stage.pool.release(lease)
            stage.comes("first")
            stage.comes("second")
            stage.cancel_at("first")
        stage.assert_all_served("second", perhaps=("first",))

    explore(scenario)


def test_a_lower_limit_against_releases_against_acquire() -> None:
    async def scenario() -> None:
        stage = Stage(config(2))
        async with stage.set():
            leases = [await stage.lend(), await stage.lend()]
            await stage.waits("first")
            for lease in leases:
                stage.releases(lease)
            stage.at(lambda: stage.pool.set_limit(stage.world.endpoint, 1))
            stage.comes("newcomer")
            stage.world.limit = 1
        stage.assert_all_served("first", "newcomer")

    explore(scenario)


def test_pause_and_resume_against_release_against_acquire() -> None:
    async def scenario() -> None:
        stage = Stage(config(1))
        async with stage.set():
            lease = await stage.lend()
            await stage.waits("first")
            stage.releases(lease)
            stage.at(stage.pool.pause)
            stage.at(stage.pool.resume)
            stage.at(stage.pool.resume, T + 0.001)
            stage.comes("newcomer")
        stage.assert_served("first", "newcomer")

    explore(scenario)

"""Random walks with everything at once: observers that meddle, hooks and connectors that misbehave.

Each walk has its own seed. Callers come, are cancelled, give back in every way; observers call any
synchronous method of the pool from any event; health hooks borrow, close, detach, raise or hang;
connectors fail oddly; peers hang up; the reaper is on or off. After every step of any task the
books must balance, and whoever waits must have a reason to (see `tests.support.invariants`). In the
end nobody may be left waiting, and the block must be left in time.

`CONPOOL_WALKS=20000 python -m pytest tests/proof/test_meddlers.py` makes a hundred times as many.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from random import Random
from typing import Any, Final

import pytest
import trio
from trio.testing import MockClock

import conpool
from conpool import AnyEndpoint, Connection, ConnectionInfo, ConnectionPool
from tests.support.pools import HERE, THERE, Network, open_pool

WALKS: Final = int(os.environ.get("CONPOOL_WALKS", "200"))
AT_A_TIME: Final = 20
"""Walks of one test."""

DEEDS: Final = 60
Pool = ConnectionPool[None]


class Meddler(conpool.Observer):
    """Calls the pool from within any event, now and then."""

    pool: Pool | None = None

    def __init__(self, random: Random) -> None:
        self._random = random
        self._depth = 0
        self.done = 0

    def _meddle(self, *_: object) -> None:
        if self.pool is None or self._depth > 2 or self._random.random() > 0.15:
            return
        self._depth += 1
        self.done += 1
        try:
            with suppress(conpool.PoolClosed, trio.WouldBlock, RuntimeError):
                meddle(self.pool, self._random)
        finally:
            self._depth -= 1
        if self._random.random() < 0.1:
            raise ValueError("an observer's own fault")

    def acquire_started(self, endpoint: AnyEndpoint) -> None:
        self._meddle()

    def acquired(self, info: ConnectionInfo, waited: float) -> None:
        self._meddle()

    def acquire_failed(self, endpoint: AnyEndpoint, error: BaseException, waited: float) -> None:
        self._meddle()

    def released(self, info: ConnectionInfo, held: float) -> None:
        self._meddle()

    def connecting(self, info: ConnectionInfo) -> None:
        self._meddle()

    def connected(self, info: ConnectionInfo, took: float) -> None:
        self._meddle()

    def connect_failed(self, info: ConnectionInfo, error: BaseException, took: float) -> None:
        self._meddle()

    def closed(self, info: ConnectionInfo, reason: conpool.CloseReason) -> None:
        self._meddle()

    def cleared(self, endpoint: AnyEndpoint) -> None:
        self._meddle()


def meddle(pool: Pool, random: Random) -> None:
    """Call any synchronous method of the pool."""
    endpoint = random.choice([HERE, THERE])
    match random.randrange(9):
        case 0:
            pool.release(pool.acquire_nowait(endpoint))
        case 1:
            pool.discard(pool.acquire_nowait(endpoint))
        case 2:
            pool.clear(random.choice([endpoint, None]), interrupt_in_use=random.random() < 0.2)
        case 3:
            pool.close_idle(random.choice([endpoint, None]))
        case 4:
            pool.pause(endpoint)
        case 5 | 6:
            pool.resume(endpoint)
        case 7:
            pool.set_limit(endpoint, random.randint(1, 4))
        case _:
            str(pool.all_stats()), repr(pool), pool.stats(endpoint)


class OddNetwork(Network):
    """Dials take their time, and fail in ways that no connector should."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        self.delay = self._random.choice([0.0, 0.0, 0.1, 2.0])
        match self._random.randrange(12):
            case 0:
                raise ConnectionRefusedError
            case 1:
                raise ExceptionGroup("odd", [ValueError(), OSError()])
            case 2:
                return None  # type: ignore[return-value]
            case _:
                return await super().connect(endpoint)


async def visit(pool: Pool, random: Random) -> None:
    """Be one caller, who may lose patience, and gives back in any way."""
    endpoint = random.choice([HERE, THERE])
    patience = random.choice([math.inf, math.inf, 0.0, 0.5, 3.0])
    fresh = random.random() < 0.2
    with suppress(conpool.PoolError, trio.ClosedResourceError, trio.BrokenResourceError, KeyError):
        with trio.move_on_after(patience):
            async with pool.connection(endpoint, fresh=fresh, timeout=20) as conn:
                await leave(conn, pool, random)


async def leave(conn: Connection[None], pool: Pool, random: Random) -> None:
    await trio.sleep(random.choice([0.0, 0.0, 0.3, 1.5]))
    match random.randrange(8):
        case 0:
            raise KeyError
        case 1:
            await conn.send_all(b"never answered")
        case 2:
            pool.discard(conn)
        case 3:
            conn.retire()
        case 4:
            await conn.detach().aclose()
        case _:
            await conn.send_all(b"ping")
            await conn.receive_some()


def make_hook(random: Random, meddler: Meddler) -> Any:
    async def hook(conn: Connection[None]) -> bool:
        match random.randrange(8):
            case 0:
                raise OSError("sick")
            case 1:
                await conn.aclose()
            case 2:
                await conn.detach().aclose()
            case 3:
                await trio.sleep(100)
            case 4 if meddler.pool is not None:
                with suppress(conpool.PoolError), trio.move_on_after(0.5):
                    async with meddler.pool.connection(THERE):
                        pass
            case _:
                await trio.lowlevel.checkpoint()
        return random.random() < 0.8

    return hook


async def walk(seed: int) -> int:
    random = Random(seed)
    meddler = Meddler(random)
    options: dict[str, Any] = {
        "max_connections_per_endpoint": random.randint(1, 3),
        "max_connections": random.choice([None, 1, 2, 4]),
        "min_idle_per_endpoint": random.choice([0, 0, 1]),
        "max_idle_per_endpoint": random.choice([None, 1]),
        "max_idle_time": random.choice([1.0, 60.0]),
        "max_connection_lifetime": random.choice([3.0, 300.0]),
        "outage_grace": random.choice([0.0, 1.0, math.inf]),
        "reap_interval": random.choice([1.0, 1_000.0]),
        "shutdown_grace": random.choice([0.0, 2.0]),
        "health_check_timeout": 1.0,
    }
    if random.random() < 0.5:
        options["health_check"] = make_hook(random, meddler)
        options["health_check_interval"] = random.choice([2.0, math.inf])
    async with (
        open_pool(OddNetwork(random), observers=[meddler], **options) as pool,
        trio.open_nursery() as nursery,
    ):
        meddler.pool = pool
        for _ in range(DEEDS):
            match random.randrange(6):
                case 0:
                    meddle_from_outside(pool, random)
                case 1:
                    await trio.sleep(random.choice([0.0, 0.5, 2.0, 8.0]))
                case _:
                    nursery.start_soon(visit, pool, random)
        for endpoint in (HERE, THERE):
            pool.resume(endpoint)
        await trio.sleep(1)
        if random.random() < 0.5:
            meddler.pool = None
            for endpoint in (HERE, THERE):
                pool.resume(endpoint)
            await trio.sleep(60)
            assert pool.all_stats().waiting == 0, "somebody waits for ever"
        meddler.pool = None
        nursery.cancel_scope.cancel()
    return meddler.done


def meddle_from_outside(pool: Pool, random: Random) -> None:
    with suppress(trio.WouldBlock):
        meddle(pool, random)


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("start", range(0, WALKS, AT_A_TIME))
def test_whatever_meddles_the_books_balance_and_nobody_waits_without_a_reason(start: int) -> None:
    """G1 G2 G10 G12 G17 G20 G26 G30"""
    meddled = 0
    for seed in range(start, min(start + AT_A_TIME, WALKS)):
        try:
            meddled += trio.run(walk, seed, clock=MockClock(autojump_threshold=0))
        except BaseException as exc:
            exc.add_note(f"seed {seed}")
            raise
    assert meddled > AT_A_TIME

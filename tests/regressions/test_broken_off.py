"""Something breaks while a lease ends: it ends all the same, and may cost its connection (G11)."""

from __future__ import annotations

import errno
import gc
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import trio

from conpool import AnyEndpoint, Connection, ConnectionPool, PoolConfig
from conpool._core.ledger import Ledger
from conpool._engine.engine import Engine
from conpool._lending import release
from conpool._stats.counters import Counters
from tests.support.loopback_servers import exchange, serving
from tests.support.pools import HERE, counts, hold, open_pool, reasons, settle

Pool = ConnectionPool[None]
Lease = Connection[None]


# ── near the recursion limit ────────────────────────────────────────────────────


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    """Whatever happens, the recursion limit is as before."""
    before = sys.getrecursionlimit()
    yield
    assert sys.getrecursionlimit() == before


def frames_left() -> int:
    frame, depth = sys._getframe(1), 1
    while (behind := frame.f_back) is not None:
        frame, depth = behind, depth + 1
    return sys.getrecursionlimit() - depth


async def lend_deep_down(pool: Pool, endpoint: AnyEndpoint, left: int, *, fail: bool) -> None:
    """Enter and leave a block where so many frames are left."""
    if frames_left() > left:
        await lend_deep_down(pool, endpoint, left, fail=fail)
        return
    async with pool.connection(endpoint):
        if fail:
            raise ZeroDivisionError


def call_deep_down(call: Callable[[], object], left: int) -> None:
    if frames_left() > left:
        call_deep_down(call, left)
    else:
        call()


async def wait_ended(pool: Pool, endpoint: AnyEndpoint) -> None:
    with trio.fail_after(5):
        while pool.stats(endpoint).active:  # noqa: ASYNC110 - the sweep sets no event
            await trio.sleep(0.01)


@pytest.mark.parametrize("fail", [True, False])
@pytest.mark.parametrize("left", [*range(8, 30), 40, 60, 80])
async def test_f142_a_block_that_ends_near_the_recursion_limit_has_ended(
    left: int, fail: bool
) -> None:
    async with serving() as server, ConnectionPool() as pool:
        endpoint = server.endpoint
        async with pool.connection(endpoint):
            pass
        with suppress(ZeroDivisionError, RecursionError):
            await lend_deep_down(pool, endpoint, left, fail=fail)
        assert counts(pool, endpoint) in ({"idle": 1}, {})
        stats = pool.stats(endpoint)
        assert stats.use_time.count == stats.acquired
        async with pool.connection(endpoint) as lease:
            await exchange(lease)


@pytest.mark.parametrize("left", [*range(6, 30), 40, 60])
@pytest.mark.parametrize("how", ["release", "discard", "detach"])
async def test_f142_a_lease_that_is_ended_near_the_recursion_limit_ends_or_may_be_ended_later(
    left: int, how: str
) -> None:
    """Or the next sweep ends it, where there was room for the call and for nothing more."""
    config = PoolConfig(reap_interval=0.01)
    async with serving() as server, ConnectionPool(config) as pool:
        endpoint = server.endpoint
        lease = await pool.acquire(endpoint)
        streams: list[trio.abc.Stream] = []
        ends: dict[str, Callable[[], object]] = {
            "release": lambda: pool.release(lease),
            "discard": lambda: pool.discard(lease),
            "detach": lambda: streams.append(lease.detach()),
        }
        try:
            call_deep_down(ends[how], left)
        except RecursionError:
            pool.discard(lease)
            await wait_ended(pool, endpoint)
        assert counts(pool, endpoint) in ({"idle": 1}, {})
        for stream in streams:
            await stream.aclose()


@pytest.mark.parametrize("left", range(1, 12))
@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_f142_garbage_that_is_collected_near_the_recursion_limit_is_taken_back(
    left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next sweep, if not even a call of trio's loop was possible."""
    # pytest's own hook is Python code, and may find no room for itself there.
    monkeypatch.setattr(sys, "unraisablehook", deque[object](maxlen=0).append)
    async with serving() as server, ConnectionPool(PoolConfig(reap_interval=0.01)) as pool:
        leases = [await pool.acquire(server.endpoint)]
        try:
            call_deep_down(leases.clear, left)
        except RecursionError:
            leases.clear()
        await wait_ended(pool, server.endpoint)
        assert reasons(pool, server.endpoint) == {"DISCARDED": 1}


# ── whatever else breaks ────────────────────────────────────────────────────────

ENDS: dict[str, Callable[[Pool, Lease], object]] = {
    "release": lambda pool, lease: pool.release(lease),
    "discard": lambda pool, lease: pool.discard(lease),
}


def break_once(
    patch: pytest.MonkeyPatch, owner: Any, name: str, error: BaseException, *, after: bool = False
) -> None:
    """Have the next call of `owner.name` raise `error`, instead of its work or after it."""
    original = getattr(owner, name)

    def broken(*args: Any, **options: Any) -> Any:
        patch.setattr(owner, name, original)
        if after:
            original(*args, **options)
        raise error

    patch.setattr(owner, name, broken)


PLACES: dict[str, tuple[Any, str]] = {
    "the judgement": (release, "end_exchange"),
    "the books": (Ledger, "condemn"),
    "the statistics": (Counters, "note_use"),
    "what the core decided": (Engine, "perform"),
}


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), AssertionError("a bug")])
@pytest.mark.parametrize("place", PLACES)
async def test_f142_a_block_ends_whatever_breaks_and_tells_of_it_afterwards(
    place: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        open_pool(max_connections_per_endpoint=1) as pool,
        trio.open_nursery() as nursery,
    ):
        with pytest.raises(type(error)) as caught:
            async with pool.connection(HERE):
                nursery.start_soon(hold, pool)
                await settle()
                break_once(monkeypatch, *PLACES[place], error)
                raise ZeroDivisionError
        assert caught.value is error
        monkeypatch.undo()
        await settle()
        assert counts(pool) == {"active": 1}  # the next in line


@pytest.mark.parametrize("how", ENDS)
async def test_f142_what_the_system_says_of_a_descriptor_goes_no_further_than_the_log(
    how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pool() as pool:
        lease = await pool.acquire(HERE)
        break_once(monkeypatch, Engine, "perform", OSError(errno.EBADF, "Bad file descriptor"))
        ENDS[how](pool, lease)
        await settle()
        assert "could not be ended as usual" in caplog.text or how == "release"
        assert counts(pool) in ({}, {"idle": 1})


async def test_f142_a_lease_that_cannot_be_ended_now_is_ended_by_the_next_sweep(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pool(reap_interval=0.01) as pool:
        lease = await pool.acquire(HERE)
        broken = MemoryError()

        def fail(*_: object) -> None:
            raise broken

        with monkeypatch.context() as patch:
            patch.setattr(release.Releaser, "_drop", fail)
            with pytest.raises(MemoryError):
                pool.discard(lease)
        assert counts(pool) == {"active": 1}
        await wait_ended(pool, HERE)
        assert reasons(pool) == {"DISCARDED": 1}
        gc.collect()

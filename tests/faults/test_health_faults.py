"""FAULTS E: health checks that misbehave, and what they do to the pool."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from conpool import CloseReason, Connection, Endpoint, PoolConfig
from tests.support.clean import clean
from tests.support.faults import LOOPBACK
from tests.support.loopback_servers import exchange, receive_exactly, serving

from .blocks import QUICK
from .sites import ProxyTo, Site

# ── the health check misbehaves ─────────────────────────────────────────────────


class Check:
    """A health check that misbehaves once, and then finds every connection healthy."""

    def __init__(self, act: Callable[[Connection[None]], Awaitable[bool]]) -> None:
        self._act = act
        self.asked = 0

    async def __call__(self, conn: Connection[None]) -> bool:
        self.asked += 1
        if self.asked == 1:
            return await self._act(conn)
        await trio.lowlevel.checkpoint()
        return True


async def raises(conn: Connection[None]) -> bool:
    raise ZeroDivisionError


async def returns_false(conn: Connection[None]) -> bool:
    await trio.lowlevel.checkpoint()
    return False


async def hangs(conn: Connection[None]) -> bool:
    await trio.sleep_forever()


async def hangs_in_a_receive(conn: Connection[None]) -> bool:
    await conn.receive_some()
    return True


async def closes(conn: Connection[None]) -> bool:
    await conn.aclose()
    return True


async def asks_and_does_not_read(conn: Connection[None]) -> bool:
    await conn.send_all(b"ping")
    return True


async def reads_half(conn: Connection[None]) -> bool:
    await conn.send_all(b"ping")
    assert await conn.receive_some(2) == b"pi"
    return True


async def swallows_a_time_out(conn: Connection[None]) -> bool:
    with trio.move_on_after(0):
        await conn.receive_some()
    return True


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (raises, CloseReason.UNHEALTHY),
        (returns_false, CloseReason.UNHEALTHY),
        (hangs, CloseReason.UNHEALTHY),
        (hangs_in_a_receive, CloseReason.UNHEALTHY),
        (closes, CloseReason.DISCARDED),
        (asks_and_does_not_read, CloseReason.INCOMPLETE),
        (reads_half, CloseReason.UNREAD_DATA),
        (swallows_a_time_out, CloseReason.INCOMPLETE),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_f079_whatever_a_health_check_does_the_caller_gets_a_good_connection(
    act: Callable[[Connection[None]], Awaitable[bool]], reason: CloseReason
) -> None:
    check = Check(act)
    config = PoolConfig(health_check_timeout=0.05)
    async with serving() as server, clean(server.endpoint, config, health_check=check) as case:
        async with case.pool.connection(server.endpoint) as conn:
            await exchange(conn)
        async with case.pool.connection(server.endpoint) as conn:
            await exchange(conn)
            assert conn.uses == 1
        assert check.asked == 1
        assert case.log.reasons == [reason]


async def test_f079_what_is_no_mere_error_ends_the_pool() -> None:
    async def fatal(conn: Connection[None]) -> bool:
        raise SystemExit(3)

    async with serving() as server:
        config = PoolConfig(max_connections_per_endpoint=1)
        with pytest.raises(BaseExceptionGroup) as caught:
            async with clean(None, config, health_check=Check(fatal)) as case:
                async with case.pool.connection(server.endpoint):
                    pass
                await case.pool.acquire(server.endpoint)
        assert caught.value.subgroup(SystemExit) is not None
        assert case.pool.stats(server.endpoint).active == 0


async def test_f079_a_check_that_keeps_its_lease_keeps_nothing() -> None:
    kept: list[Connection[None]] = []

    async def keep(conn: Connection[None]) -> bool:
        kept.append(conn)
        await trio.lowlevel.checkpoint()
        return True

    async with serving() as server, clean(server.endpoint, health_check=keep) as case:
        async with case.pool.connection(server.endpoint):
            pass
        async with case.pool.connection(server.endpoint):
            with pytest.raises(trio.ClosedResourceError):
                await kept[0].send_all(b"x")
        case.pool.clear()


async def test_asking_a_lease_whether_it_is_healthy_takes_nothing_from_it(site: Site) -> None:
    async with clean(site.endpoint) as case:
        async with case.pool.connection(site.endpoint) as conn:
            server = await site.accept()
            assert await conn.is_healthy()
            await server.send_all(b"answer")
            assert await receive_exactly(conn, 6) == b"answer"
            assert await conn.is_healthy()
        async with case.pool.connection(site.endpoint) as conn:
            assert conn.reused


async def test_a_lease_whose_peer_has_gone_is_not_healthy(site: Site) -> None:
    async with clean(site.endpoint) as case:
        async with case.pool.connection(site.endpoint) as conn:
            site.end(await site.accept())
            await trio.lowlevel.wait_readable(case.recorder.sockets[0])
            assert not await conn.is_healthy()
        assert case.log.reasons == [CloseReason.INCOMPLETE]


async def test_nor_is_one_on_which_something_lies_unread_and_it_is_not_lent_again(
    site: Site,
) -> None:
    async with clean(site.endpoint) as case:
        async with case.pool.connection(site.endpoint) as conn:
            await (await site.accept()).send_all(b"x")
            while await conn.is_healthy():
                await trio.lowlevel.checkpoint()
        assert case.log.reasons == [CloseReason.INCOMPLETE]


async def test_the_background_check_closes_what_does_not_answer(proxy_to: ProxyTo) -> None:
    async def ping(conn: Connection[None]) -> bool:
        await exchange(conn)
        return True

    async with serving() as server:
        proxy = await proxy_to(server.port)
        endpoint = Endpoint(LOOPBACK, proxy.port)
        config = QUICK.replace(health_check_interval=0.02, health_check_timeout=0.05)
        async with clean(endpoint, config, health_check=ping) as case:
            async with case.pool.connection(endpoint) as conn:
                await exchange(conn)
            passage = proxy.passages[0]
            await passage.down.wait_passed(3 * len(b"ping"))
            assert not case.log.reasons, "it answers, and stays"
            passage.black_hole()
            await case.log.wait_closed(CloseReason.UNHEALTHY)
            case.pool.clear()
            await wait_all_tasks_blocked()
            case.then = server.endpoint

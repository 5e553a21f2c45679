"""FAULTS E: what happens to a connection while nobody uses it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest
import trio
from trio.testing import MockClock

from conpool import CloseReason, Connection, Endpoint, PoolConfig
from conpool.testing import MemoryConnector
from tests.support.clean import Case, clean
from tests.support.faults import LOOPBACK
from tests.support.kernel import TCPState, client_sockets, need_kernel_table
from tests.support.loopback_servers import exchange, serving
from tests.support.pools import echo

from .blocks import QUICK
from .sites import ProxyTo, Site, TCPSite

PEER_CLOSED = CloseReason.PEER_CLOSED
UNREAD_DATA = CloseReason.UNREAD_DATA


async def lend_another(case: Case, site: Site) -> None:
    """Have a new connection, which works: the caller notices nothing of the old one's end."""
    async with case.pool.connection(site.endpoint) as conn:
        assert not conn.reused
        server = await site.accept()
        await server.send_all(b"answer")
        assert await conn.receive_some() == b"answer"


# ── the peer closes, or speaks ──────────────────────────────────────────────────


async def test_f071_g3_one_that_the_peer_has_closed_is_replaced_unseen(site: Site) -> None:
    async with clean(site.endpoint) as case:
        site.end(await site.lend(case), "close")
        case.await_stir()
        await lend_another(case, site)
        assert case.log.reasons == [PEER_CLOSED]


async def test_f071_one_whose_peer_has_only_stopped_sending_is_replaced_too(
    proxy_to: ProxyTo,
) -> None:
    async with serving() as server:
        proxy = await proxy_to(server.port)
        endpoint = Endpoint(LOOPBACK, proxy.port)
        async with clean(endpoint) as case:
            async with case.pool.connection(endpoint) as conn:
                await exchange(conn)
            proxy.passages[0].end("half-close")
            case.await_stir()
            async with case.pool.connection(endpoint) as conn:
                assert not conn.reused
                await exchange(conn)
            assert case.log.reasons == [PEER_CLOSED]


async def test_f071_one_whose_peer_stops_sending_after_its_answer_is_not_kept(
    proxy_to: ProxyTo,
) -> None:
    async with serving() as server:
        proxy = await proxy_to(server.port)
        proxy.prepare = lambda passage: passage.down.cut_after(len(b"ping"), "half-close")
        endpoint = Endpoint(LOOPBACK, proxy.port)
        async with clean(server.endpoint) as case:
            async with case.pool.connection(endpoint) as conn:
                await exchange(conn, b"ping")
                assert await conn.receive_some() == b""
            assert case.log.reasons == [PEER_CLOSED]


async def test_f072_one_that_the_peer_has_reset_is_replaced_unseen(site: Site) -> None:
    async with clean(site.endpoint) as case:
        site.end(await site.lend(case), "reset")
        case.await_stir()
        await lend_another(case, site)
        assert case.log.reasons == [PEER_CLOSED]


async def test_f073_g3_one_on_which_something_arrived_is_replaced_unseen(site: Site) -> None:
    async with clean(site.endpoint) as case:
        server = await site.lend(case)
        await server.send_all(b"*3\r\n$7\r\nmessage\r\n")
        case.await_stir()
        await lend_another(case, site)
        assert case.log.reasons == [UNREAD_DATA]


async def test_f074_last_words_before_the_end_are_unread_data(site: Site) -> None:
    async with clean(site.endpoint) as case:
        server = await site.lend(case)
        await server.send_all(b"HTTP/1.1 408 Request Time-out\r\n\r\n")
        site.end(server)
        case.await_stir()
        await lend_another(case, site)
        assert case.log.reasons == [UNREAD_DATA]


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_f071_f072_without_any_traffic_its_end_is_seen_at_once(site: Site, how: str) -> None:
    need_kernel_table()  # on other systems the sweep sees it
    async with clean(site.endpoint, PoolConfig(reap_interval=60.0)) as case:
        site.end(await site.lend(case), "close" if how == "close" else "reset")
        await case.log.wait_closed(PEER_CLOSED)


async def test_f074_last_words_and_the_end_are_seen_at_once(site: Site) -> None:
    need_kernel_table()
    async with clean(site.endpoint, PoolConfig(reap_interval=60.0)) as case:
        server = await site.lend(case)
        await server.send_all(b"FATAL 57P01")
        await server.aclose()
        await case.log.wait_closed(UNREAD_DATA)


async def test_f073_what_arrives_while_idle_is_found_by_the_sweep(site: Site) -> None:
    async with clean(site.endpoint, QUICK) as case:
        await (await site.lend(case)).send_all(b"unasked")
        await case.log.wait_closed(UNREAD_DATA)


async def test_no_socket_stays_half_closed(tcp_site: TCPSite) -> None:
    need_kernel_table()
    async with clean(tcp_site.endpoint) as case:
        await case.pool.warm(tcp_site.endpoint, 5)
        servers = [await tcp_site.accept() for _ in range(5)]
        assert client_sockets(tcp_site.port) == {TCPState.ESTABLISHED: 5}
        for server in servers:
            tcp_site.end(server)
        await case.log.wait_closed(*[PEER_CLOSED] * 5)
        assert not client_sockets(tcp_site.port)


async def test_hundreds_that_are_closed_at_once_are_all_seen(tcp_site: TCPSite) -> None:
    need_kernel_table()
    many = 300  # more than the watch reads at a time
    config = PoolConfig(max_connections_per_endpoint=many, reap_interval=60.0)
    async with clean(tcp_site.endpoint, config, pace=many) as case:
        await case.pool.warm(tcp_site.endpoint, many)
        for server in [await tcp_site.accept() for _ in range(many)]:
            tcp_site.end(server)
        await case.log.wait_closed(*[PEER_CLOSED] * many)


async def test_f075_what_comes_after_the_look_reaches_the_caller_who_can_tell_and_retry(
    site: Site,
) -> None:
    async with clean(site.endpoint) as case:
        server = await site.lend(case)
        async with case.pool.connection(site.endpoint) as conn:
            assert conn.reused, "which is what lets the caller retry"
            await server.send_all(b"late")
            assert await conn.receive_some() == b"late"
            conn.retire()
        async with case.pool.connection(site.endpoint, fresh=True) as conn:
            assert not conn.reused


async def test_f076_an_end_after_the_look_is_the_callers_error_and_closes_it(site: Site) -> None:
    async with clean(site.endpoint) as case:
        server = await site.lend(case)
        with pytest.raises((EOFError, trio.BrokenResourceError)):
            async with case.pool.connection(site.endpoint) as conn:
                site.end(server)
                if not await conn.receive_some():
                    raise EOFError
        assert case.log.reasons == [CloseReason.ERROR]


# ── the peer vanishes, or everything does ───────────────────────────────────────


async def test_f077_a_vanished_peer_looks_alive_and_the_health_check_finds_out(
    proxy_to: ProxyTo,
) -> None:
    async def ping(conn: Connection[None]) -> bool:
        await exchange(conn)
        return True

    async with serving() as server:
        proxy = await proxy_to(server.port)
        endpoint = Endpoint(LOOPBACK, proxy.port)
        config = PoolConfig(health_check_timeout=0.05)
        async with clean(endpoint, config, health_check=ping) as case:
            async with case.pool.connection(endpoint) as conn:
                await exchange(conn)
            proxy.passages[0].black_hole()
            began = trio.current_time()
            async with case.pool.connection(endpoint) as conn:
                assert conn.uses == 1
                await exchange(conn)
            assert 0.05 <= trio.current_time() - began < 2.0
            assert case.log.reasons == [CloseReason.UNHEALTHY]


async def test_f078_g14_when_all_have_died_one_acquire_discards_them_without_waiting(
    site: Site,
) -> None:
    async with clean(site.endpoint) as case:
        await case.pool.warm(site.endpoint, 10)
        for server in [await site.accept() for _ in range(10)]:
            site.end(server)
        case.await_stir(10)
        await lend_another(case, site)
        assert case.log.reasons == [PEER_CLOSED] * 10
        assert case.log.dialled == 11


async def test_f078_after_two_failed_checks_a_new_connection_is_dialled(
    proxy_to: ProxyTo,
) -> None:
    checks = 0

    async def ping(conn: Connection[None]) -> bool:
        nonlocal checks
        checks += 1
        await exchange(conn)
        return True

    async with serving() as server:
        proxy = await proxy_to(server.port)
        endpoint = Endpoint(LOOPBACK, proxy.port)
        config = PoolConfig(health_check_timeout=0.05)
        async with clean(endpoint, config, health_check=ping) as case:
            await case.pool.warm(endpoint, 10)
            await proxy.wait_passages(10)
            for passage in proxy.passages:
                passage.black_hole()
            async with case.pool.connection(endpoint) as conn:
                assert conn.uses == 1
            assert checks == 2
            assert case.log.reasons[:2] == [CloseReason.UNHEALTHY] * 2
            case.pool.clear()


async def test_f078_a_health_check_is_not_asked_about_what_is_plainly_dead(site: Site) -> None:
    async def check(conn: Connection[None]) -> bool:
        raise AssertionError("the look comes first")

    async with clean(site.endpoint, health_check=check) as case:
        await case.pool.warm(site.endpoint, 1)
        site.end(await site.accept())
        case.await_stir()
        await lend_another(case, site)
        assert case.log.reasons == [PEER_CLOSED]
        case.pool.clear()


# ── time ────────────────────────────────────────────────────────────────────────

MEMORY = Endpoint("memory.example", 1)


async def hand_out_after(seconds: float, config: PoolConfig) -> tuple[bool, list[CloseReason]]:
    """Whether a connection is lent again after so many idle seconds; and the close reasons."""
    async with clean(MEMORY, config, connector=MemoryConnector(echo)) as case:
        async with case.pool.connection(MEMORY):
            pass
        await trio.sleep(seconds)
        async with case.pool.connection(MEMORY) as conn:
            reused = conn.reused
        return reused, list(case.log.reasons)


@pytest.mark.parametrize(("seconds", "kept"), [(9.999, True), (10.0, False), (10.001, False)])
async def test_f080_g21_idle_time_is_over_when_it_is_over(
    autojump_clock: MockClock, seconds: float, kept: bool
) -> None:
    config = PoolConfig(max_idle_time=10.0, reap_interval=1000.0)
    reused, reasons = await hand_out_after(seconds, config)
    assert reused is kept
    assert reasons == ([] if kept else [CloseReason.IDLE_TIME])


@pytest.mark.parametrize(("seconds", "kept"), [(9.999, True), (10.0, False), (10.001, False)])
async def test_f080_g21_a_lifetime_is_over_when_it_is_over(
    autojump_clock: MockClock, seconds: float, kept: bool
) -> None:
    config = PoolConfig(max_connection_lifetime=10.0, lifetime_jitter=0.0, reap_interval=1000.0)
    reused, reasons = await hand_out_after(seconds, config)
    assert reused is kept
    assert reasons == ([] if kept else [CloseReason.LIFETIME])


async def test_f080_g21_the_last_use_is_the_last() -> None:
    async with (
        serving() as server,
        clean(server.endpoint, PoolConfig(max_connection_uses=3)) as case,
    ):
        uses = []
        for _ in range(7):
            async with case.pool.connection(server.endpoint) as conn:
                uses.append(conn.uses)
        assert uses == [1, 2, 3, 1, 2, 3, 1]
        assert case.log.reasons == [CloseReason.USES] * 2


@pytest.mark.parametrize("hours", [1, -1])
async def test_f081_the_clock_on_the_wall_means_nothing(
    monkeypatch: pytest.MonkeyPatch, site: Site, hours: int
) -> None:
    async with clean(site.endpoint, QUICK) as case:
        await site.lend(case)
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)
        monkeypatch.setattr(time, "time_ns", lambda: int((real() + hours * 3600) * 1e9))
        async with case.pool.connection(site.endpoint) as conn:
            assert conn.reused
            assert 0 <= conn.age < 60
        assert not case.log.reasons


_SLEEPER = """
import json, sys
import conpool, trio

async def main():
    endpoint = conpool.Endpoint("127.0.0.1", int(sys.argv[1]))
    reasons = []
    note = lambda info, reason: reasons.append(reason.name)
    async with conpool.ConnectionPool(on_closed=note) as pool:
        async with pool.connection(endpoint):
            pass
        print("idle", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        async with pool.connection(endpoint) as conn:
            await conn.send_all(b"ask")
            answer = bytes(await conn.receive_some()).decode()
            print(json.dumps([answer, conn.reused, reasons]), flush=True)

trio.run(main)
"""


async def read_line(stream: trio.abc.ReceiveStream) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        data = await stream.receive_some()
        assert data, line
        line += data
    return line


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be suspended here")
async def test_f082_a_process_that_was_suspended_sees_what_it_has_missed(
    tcp_site: TCPSite,
) -> None:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", _SLEEPER, str(tcp_site.port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    async with process.stdin, process.stdout:
        first = await tcp_site.accept()
        assert await read_line(process.stdout) == b"idle\n"
        process.send_signal(signal.SIGSTOP)
        tcp_site.end(first)
        process.send_signal(signal.SIGCONT)
        await process.stdin.send_all(b"go on\n")
        second = await tcp_site.accept()
        assert await second.receive_some() == b"ask"
        await second.send_all(b"answer")
        said = json.loads(await read_line(process.stdout))
        assert said == ["answer", False, ["PEER_CLOSED"]]
    assert await process.wait() == 0


# ── who gets it ─────────────────────────────────────────────────────────────────


async def test_f083_g2_one_that_lapses_as_it_is_acquired_has_one_owner(
    autojump_clock: MockClock,
) -> None:
    config = PoolConfig(max_idle_time=3.0, reap_interval=1.0)
    leases = 0
    async with serving() as server, clean(server.endpoint, config) as case:

        async def use() -> None:
            nonlocal leases
            for turn in range(50):
                async with case.pool.connection(server.endpoint) as conn:
                    await exchange(conn)
                    leases += 1
                await trio.sleep(turn % 6)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(use)
        assert leases == 250
        assert CloseReason.IDLE_TIME in case.log.reasons


async def test_f085_the_newest_is_lent_first_and_the_surplus_ages(
    autojump_clock: MockClock, site: Site
) -> None:
    config = PoolConfig(max_idle_time=20.0, reap_interval=2.0)
    async with clean(site.endpoint, config) as case:
        await case.pool.warm(site.endpoint, 3)
        seen = set()
        with trio.fail_after(60):
            while case.log.reasons.count(CloseReason.IDLE_TIME) < 2:
                async with case.pool.connection(site.endpoint) as conn:
                    seen.add(conn.id)
                await trio.sleep(1.0)
        assert len(seen) == 1, "the newest was used all the time, and stayed"
        assert case.log.reasons == [CloseReason.IDLE_TIME] * 2

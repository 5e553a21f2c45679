"""The circuit breaker of a pool: what it counts, who is told, and how it is fed (G27, G28, G31)."""

from __future__ import annotations

import errno
import math
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
import trio
from trio.testing import MockClock

import conpool
from conpool import (
    AcquireTimeout,
    AnyEndpoint,
    CircuitBreaker,
    CircuitOpen,
    CircuitState,
    ConfigError,
    ConnectError,
    Connection,
    ConnectionPool,
    Driver,
    NoHealthyEndpoint,
    Observer,
    PoolClosed,
    PoolError,
    QueueFull,
)
from tests.support.pools import (
    HERE,
    THERE,
    Network,
    answer_after,
    counts,
    exchange,
    hold,
    open_pool,
    settle,
    use,
)

FRAGILE: Final = CircuitBreaker(failure_threshold=1, reset_timeout=10)
"""Opens at the first failure, for ten seconds."""

Pool = ConnectionPool[Any]


class Changes(Observer):
    """What circuits went through."""

    def __init__(self) -> None:
        self.states: list[CircuitState] = []

    def circuit_changed(self, endpoint: AnyEndpoint, old: CircuitState, new: CircuitState) -> None:
        assert endpoint == HERE
        self.states.append(new)


async def break_circuit(pool: Pool, network: Network) -> None:
    """Have a dial fail."""
    network.refuse()
    with pytest.raises(ConnectError):
        await pool.acquire(HERE)
    assert pool.stats(HERE).circuit is CircuitState.OPEN


# ── what counts, and what does not: G27 ─────────────────────────────────────────


async def fail_to_dial(pool: Pool) -> None:
    with pytest.raises(ConnectError):
        await pool.acquire(HERE, timeout=60)


def dial_fails_with(error: BaseException) -> Callable[[Network, Pool], Awaitable[None]]:
    async def happen(network: Network, pool: Pool) -> None:
        network.failures[HERE] = error
        await fail_to_dial(pool)

    return happen


def of_system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


async def dial_takes_too_long(network: Network, pool: Pool) -> None:
    network.silent.add(HERE)
    await fail_to_dial(pool)


async def server_hangs_up_before_its_first_byte(network: Network, pool: Pool) -> None:
    async def hang_up(stream: trio.abc.Stream) -> None:
        await stream.aclose()

    network.serve_with(hang_up)
    with pytest.raises((trio.BrokenResourceError, AssertionError)):
        async with pool.connection(HERE) as connection:
            await exchange(connection)


async def protocol_reports(network: Network, pool: Pool) -> None:
    pool.report_failure(HERE)


async def login_fails(network: Network, pool: Pool) -> None:
    LOGIN.is_refused = True
    await fail_to_dial(pool)


async def caller_is_cancelled_amid_its_dial(network: Network, pool: Pool) -> None:
    network.silent.add(HERE)
    with trio.move_on_after(1) as scope:
        await pool.acquire(HERE)
    assert scope.cancelled_caught
    pool.clear(HERE)  # gives the dial up
    await settle()


async def caller_waits_in_vain_for_its_dial(network: Network, pool: Pool) -> None:
    network.silent.add(HERE)
    with pytest.raises(AcquireTimeout):
        await pool.acquire(HERE, timeout=1)
    pool.clear(HERE)
    await settle()


async def caller_waits_in_vain_in_the_queue(network: Network, pool: Pool) -> None:
    async with pool.connection(HERE):
        with pytest.raises(AcquireTimeout):
            await pool.acquire(HERE, timeout=1)


async def queue_is_full(network: Network, pool: Pool) -> None:
    async with pool.connection(HERE), trio.open_nursery() as nursery:
        nursery.start_soon(hold, pool)
        await settle()
        with pytest.raises(QueueFull):
            await pool.acquire(HERE)
        nursery.cancel_scope.cancel()


async def block_raises(network: Network, pool: Pool) -> None:
    with pytest.raises(ZeroDivisionError):
        async with pool.connection(HERE):
            raise ZeroDivisionError


async def block_is_cancelled_amid_its_exchange(network: Network, pool: Pool) -> None:
    network.serve_with(answer_after(9))
    with trio.move_on_after(1):
        async with pool.connection(HERE) as connection:
            await exchange(connection)


async def server_hangs_up_after_it_has_served(network: Network, pool: Pool) -> None:
    async def serve_once(stream: trio.abc.Stream) -> None:
        await stream.send_all(await stream.receive_some())
        await stream.aclose()

    network.serve_with(serve_once)
    with pytest.raises((trio.BrokenResourceError, AssertionError)):
        async with pool.connection(HERE) as connection:
            await exchange(connection)
            await exchange(connection)


async def check_fails(network: Network, pool: Pool) -> None:
    await use(pool)
    LOGIN.is_well = False
    await use(pool)


async def pool_is_drained(network: Network, pool: Pool) -> None:
    await use(pool)
    await pool.drain(HERE)


class Login(Driver[None]):
    """Logs in, or is refused."""

    is_refused = False
    is_well = True

    async def open(self, stream: trio.abc.Stream, endpoint: AnyEndpoint) -> None:
        if self.is_refused:
            raise PermissionError("wrong password")

    async def check(self, session: None) -> bool:
        return self.is_well


LOGIN: Final = Login()

COUNTED: Final[dict[str, Any]] = {
    "refused": dial_fails_with(of_system(errno.ECONNREFUSED)),
    "reset": dial_fails_with(of_system(errno.ECONNRESET)),
    "the host cannot be reached": dial_fails_with(of_system(errno.EHOSTUNREACH)),
    "timed out by the system": dial_fails_with(of_system(errno.ETIMEDOUT)),
    "timed out by connect_timeout": dial_takes_too_long,
    "TLS breaks off": dial_fails_with(ssl.SSLEOFError(8, "EOF occurred in violation of protocol")),
    "the login is refused": login_fails,
    "the driver cannot make sense of the greeting": dial_fails_with(ValueError("no greeting")),
    "it hangs up before its first byte": server_hangs_up_before_its_first_byte,
    "a protocol reports it": protocol_reports,
}
NOT_COUNTED: Final[dict[str, Any]] = {
    "no more files": dial_fails_with(of_system(errno.EMFILE)),
    "no more files in the system": dial_fails_with(of_system(errno.ENFILE)),
    "no more buffers": dial_fails_with(of_system(errno.ENOBUFS)),
    "no more ports": dial_fails_with(of_system(errno.EADDRNOTAVAIL)),
    "no such name": dial_fails_with(socket.gaierror(socket.EAI_NONAME, "Name not known")),
    "a certificate that nobody trusts": dial_fails_with(
        ssl.SSLCertVerificationError(1, "certificate verify failed")
    ),
    "a value that cannot work": dial_fails_with(ConfigError("port must be from 1 to 65535")),
    "the caller is cancelled amid its dial": caller_is_cancelled_amid_its_dial,
    "the caller's time is up amid its dial": caller_waits_in_vain_for_its_dial,
    "the caller's time is up in the queue": caller_waits_in_vain_in_the_queue,
    "the queue is full": queue_is_full,
    "the block raises": block_raises,
    "the block is cancelled amid its exchange": block_is_cancelled_amid_its_exchange,
    "it hangs up after it has served": server_hangs_up_after_it_has_served,
    "a check fails": check_fails,
    "the pool drains it": pool_is_drained,
}


@pytest.mark.parametrize("event", [*COUNTED, *NOT_COUNTED])
async def test_g27_the_breaker_counts_what_says_something_about_the_server(
    event: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOGIN, "is_refused", False)
    monkeypatch.setattr(LOGIN, "is_well", True)
    network = Network()
    async with open_pool(
        network,
        driver=LOGIN,
        circuit_breaker=FRAGILE,
        max_connections_per_endpoint=1,
        max_waiting_per_endpoint=1,
    ) as pool:
        await (COUNTED | NOT_COUNTED)[event](network, pool)
        expected = CircuitState.OPEN if event in COUNTED else CircuitState.CLOSED
        assert pool.stats(HERE).circuit is expected


# ── who is told, and what ───────────────────────────────────────────────────────


async def test_the_error_says_when_the_pool_tries_again_and_why_it_does_not_now(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    async with open_pool(network, circuit_breaker=FRAGILE) as pool:
        await break_circuit(pool, network)
        await trio.sleep(4)
        with pytest.raises(CircuitOpen, match=r"tries again in 6s") as caught:
            await pool.acquire(HERE)
        assert caught.value.endpoint == HERE
        assert caught.value.retry_after == 6.0
        cause = caught.value.__cause__
        assert isinstance(cause, ConnectError)
        assert cause.errno == errno.ECONNREFUSED
        assert trio.current_time() == 4, "it was told at once"
        assert len(network.dials) == 1


async def test_also_of_one_that_never_tries_again_by_itself(autojump_clock: MockClock) -> None:
    network = Network()
    breaker = CircuitBreaker(failure_threshold=1, reset_timeout=math.inf)
    async with open_pool(network, circuit_breaker=breaker) as pool:
        await break_circuit(pool, network)
        with pytest.raises(CircuitOpen, match="until it is told that") as caught:
            await pool.acquire(HERE)
        assert caught.value.retry_after == math.inf


async def test_f122_while_a_trial_is_under_way_the_others_are_told_at_once(
    autojump_clock: MockClock,
) -> None:
    """G28: a server that does not even refuse must not hold up everybody."""
    network = Network()
    async with open_pool(network, circuit_breaker=FRAGILE) as pool, trio.open_nursery() as nursery:
        await break_circuit(pool, network)
        await trio.sleep(10)
        network.accept()
        network.delay = 5
        nursery.start_soon(hold, pool)
        await settle()
        with pytest.raises(CircuitOpen, match="is trying it now") as caught:
            await pool.acquire(HERE)
        assert caught.value.retry_after == 0
        assert trio.current_time() == 10
        await trio.sleep(5)
        await settle()
        assert counts(pool) == {"active": 1}
        assert len(await use(pool, 3)) == 3


async def test_connections_that_are_open_serve_on(autojump_clock: MockClock) -> None:
    """Those that are idle, and those that come back."""
    network = Network()
    async with open_pool(network, circuit_breaker=FRAGILE, max_connections_per_endpoint=2) as pool:
        first = await pool.acquire(HERE)
        network.refuse()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, pool)
            await settle()
            assert pool.stats(HERE).circuit is CircuitState.OPEN
            assert counts(pool) == {"active": 1, "waiting": 1}
            pool.release(first)
        assert await use(pool) == [first.id]


async def test_observers_hear_of_each_change_and_statistics_show_the_state(
    autojump_clock: MockClock,
) -> None:
    network, changes = Network(), Changes()
    async with open_pool(network, circuit_breaker=FRAGILE, observers=[changes]) as pool:
        assert pool.stats(HERE).circuit is CircuitState.CLOSED
        await break_circuit(pool, network)
        await trio.sleep(10)
        with pytest.raises(ConnectError):
            await pool.acquire(HERE)
        await trio.sleep(10)
        network.accept()
        await use(pool)
        assert changes.states == [
            CircuitState.OPEN,
            CircuitState.HALF_OPEN,
            CircuitState.OPEN,
            CircuitState.HALF_OPEN,
            CircuitState.CLOSED,
        ]
        assert pool.stats(HERE).circuit is CircuitState.CLOSED


async def test_statistics_for_people_name_an_open_circuit(autojump_clock: MockClock) -> None:
    network = Network()
    async with open_pool(network, circuit_breaker=FRAGILE) as pool:
        await break_circuit(pool, network)
        assert "circuit" in str(pool.stats(HERE))
        assert f"{HERE} (circuit open)" in str(pool.all_stats())


async def test_observers_hear_that_an_open_circuit_is_forgotten(autojump_clock: MockClock) -> None:
    """Otherwise a gauge would stay open for ever."""
    network, changes = Network(), Changes()
    async with open_pool(network, circuit_breaker=FRAGILE, observers=[changes]) as pool:
        await break_circuit(pool, network)
        await trio.sleep(15)
        assert pool.stats(HERE).circuit is CircuitState.OPEN, "for as long again as it was open"
        await trio.sleep(10)
        assert HERE not in pool._core.subs
        assert pool.stats(HERE).circuit is CircuitState.CLOSED
        assert changes.states == [CircuitState.OPEN, CircuitState.CLOSED]


async def test_endpoints_have_circuits_of_their_own(autojump_clock: MockClock) -> None:
    network = Network()
    async with open_pool(network, circuit_breaker=FRAGILE) as pool:
        await break_circuit(pool, network)
        assert await use(pool, 1, THERE) == [2]


async def test_an_override_may_have_the_breaker_alone(autojump_clock: MockClock) -> None:
    network = Network()
    overrides = {HERE: conpool.PoolConfig(circuit_breaker=FRAGILE, lifetime_jitter=0.0)}
    async with open_pool(network, overrides=overrides) as pool:
        await break_circuit(pool, network)
        network.refuse(THERE)
        for _ in range(9):
            with pytest.raises(ConnectError):
                await pool.acquire(THERE)


async def test_warming_is_told_that_the_circuit_is_open(autojump_clock: MockClock) -> None:
    network = Network()
    async with open_pool(network, circuit_breaker=FRAGILE) as pool:
        await break_circuit(pool, network)
        with pytest.raises(CircuitOpen):
            await pool.warm(HERE, 1)
        assert not pool.stats(HERE).waiting
        await trio.sleep(10)
        network.accept()
        await pool.warm(HERE, 1)
        assert counts(pool) == {"idle": 1}


async def test_one_that_has_what_it_warms_for_needs_no_dial(autojump_clock: MockClock) -> None:
    async with open_pool(circuit_breaker=FRAGILE) as pool:
        await use(pool)
        pool.report_failure(HERE)
        await pool.warm(HERE, 1)


async def test_kept_idle_ones_are_not_dialled_while_it_is_open(autojump_clock: MockClock) -> None:
    network = Network()
    async with open_pool(
        network, circuit_breaker=FRAGILE, min_idle_per_endpoint=2, max_idle_time=600
    ) as pool:
        await use(pool)
        await settle()
        pool.report_failure(HERE)
        assert pool.close_idle(HERE) >= 2
        dials = len(network.dials)
        await trio.sleep(9)
        assert len(network.dials) == dials


# ── fed by protocols, and by hand ───────────────────────────────────────────────


async def test_a_server_that_answers_with_errors_only_opens_the_circuit(
    autojump_clock: MockClock,
) -> None:
    """Though every dial succeeds: it closes the connection after each answer."""
    network = Network()
    breaker = CircuitBreaker(failure_threshold=3)
    async with open_pool(network, circuit_breaker=breaker, max_connection_uses=1) as pool:
        for _ in range(3):
            async with pool.connection(HERE):
                pool.report_failure(HERE)
        with pytest.raises(CircuitOpen):
            await pool.acquire(HERE)
        assert len(network.dials) == 3


async def test_successes_in_between_keep_it_closed(autojump_clock: MockClock) -> None:
    async with open_pool(circuit_breaker=CircuitBreaker(failure_threshold=3)) as pool:
        for _ in range(9):
            pool.report_failure(HERE)
            pool.report_failure(HERE)
            pool.report_success(HERE)
        assert await use(pool) == [1]


@pytest.mark.parametrize("close", [Pool.report_success, Pool.mark_healthy])
async def test_a_word_closes_an_open_circuit(
    close: Callable[[Pool, Any], None], autojump_clock: MockClock
) -> None:
    network = Network()
    async with open_pool(network, circuit_breaker=FRAGILE) as pool:
        await break_circuit(pool, network)
        network.accept()
        close(pool, HERE)
        assert pool.stats(HERE).circuit is CircuitState.CLOSED
        assert await use(pool) == [2]


async def test_reports_to_a_pool_that_has_ended_mean_nothing() -> None:
    """A protocol reports at the end of a lease, which may come after the end of the pool."""
    async with open_pool(circuit_breaker=FRAGILE) as pool:
        await pool.aclose()
        pool.report_failure(HERE)
        pool.report_success(HERE)
        with pytest.raises(PoolClosed):
            pool.mark_unhealthy(HERE)


async def test_reports_about_what_is_no_endpoint_are_refused() -> None:
    async with open_pool(circuit_breaker=FRAGILE) as pool:
        for steer in (pool.report_failure, pool.report_success, pool.mark_unhealthy):
            with pytest.raises(TypeError, match="not an Endpoint"):
                steer("here.example:5432")  # type: ignore[arg-type]


async def test_reports_from_another_thread_are_refused() -> None:
    async with open_pool(circuit_breaker=FRAGILE) as pool:
        for steer in (pool.report_failure, pool.report_success, pool.mark_unhealthy):
            with pytest.raises(RuntimeError, match="another thread"):
                await trio.to_thread.run_sync(steer, HERE)
        assert pool.stats(HERE).circuit is CircuitState.CLOSED


async def test_without_a_breaker_reports_mean_nothing() -> None:
    async with open_pool() as pool:
        for _ in range(99):
            pool.report_failure(HERE)
        assert await use(pool) == [1]


# ── marks ───────────────────────────────────────────────────────────────────────


async def test_an_endpoint_that_is_marked_unhealthy_is_not_lent(autojump_clock: MockClock) -> None:
    async with open_pool() as pool:
        await use(pool)
        pool.mark_unhealthy(HERE)
        with pytest.raises(NoHealthyEndpoint, match="marked unhealthy") as caught:
            await pool.acquire(HERE)
        assert list(caught.value.reasons) == [HERE]
        with pytest.raises(trio.WouldBlock):
            pool.acquire_nowait(HERE)
        assert await use(pool, 1, THERE) == [2]
        pool.mark_healthy(HERE)
        assert await use(pool) == [1]


async def test_whoever_waits_for_it_is_told(autojump_clock: MockClock) -> None:
    errors: list[PoolError] = []

    async def ask() -> None:
        with pytest.raises(NoHealthyEndpoint) as caught:
            await pool.acquire(HERE)
        errors.append(caught.value)

    async with open_pool(max_connections_per_endpoint=1, max_waiting_per_endpoint=2) as pool:
        async with pool.connection(HERE) as held, trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await settle()
            pool.mark_unhealthy(HERE)
            await settle()
            assert len(errors) == 2
            assert await exchange(held) == b"ping", "leases go on"
        await ask()


# ── many ────────────────────────────────────────────────────────────────────────


async def test_g31_ten_thousand_callers_of_a_dead_server_cause_a_dozen_dials_in_a_minute(
    autojump_clock: MockClock,
) -> None:
    """Some of them ask again each second."""
    network = Network()
    network.refuse()
    told: dict[type[Exception], int] = {}
    longest = 0.0

    async def ask() -> None:
        nonlocal longest
        since = trio.current_time()
        try:
            await pool.acquire(HERE)
        except PoolError as error:
            told[type(error)] = told.get(type(error), 0) + 1
        longest = max(longest, trio.current_time() - since)

    async def insist() -> None:
        while trio.current_time() < 60:
            await ask()
            await trio.sleep(1)

    async with (
        open_pool(network, circuit_breaker=CircuitBreaker(), every_step=False) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(10_000):
            nursery.start_soon(ask)
        for _ in range(30):
            nursery.start_soon(insist)
    assert len(network.dials) <= 12
    assert sum(told.values()) == 10_000 + 60 * 30
    assert set(told) == {ConnectError, CircuitOpen}
    assert longest < 1.0, "nobody waits for a server that is away"


async def test_f126_a_server_that_is_back_is_tried_once_and_serves_all(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    async with open_pool(network, circuit_breaker=FRAGILE, every_step=False) as pool:
        await break_circuit(pool, network)
        await trio.sleep(10)
        network.accept()
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(insist_until_served, pool)
        assert len(network.dials) <= 1 + 10
        assert pool.stats(HERE).acquired == 100


async def insist_until_served(pool: Pool) -> None:
    while True:
        try:
            lease: Connection[Any] = await pool.acquire(HERE)
        except CircuitOpen as error:
            await trio.sleep(error.retry_after or 0.01)
        else:
            pool.release(lease)
            return

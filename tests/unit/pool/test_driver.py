"""A pool with a driver: what each of its methods is asked, when, and what comes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from conpool import (
    AnyEndpoint,
    CloseReason,
    ConfigError,
    ConnectError,
    ConnectionPool,
    ConnectTimeout,
    Driver,
)
from tests.support.drivers import Full, Plain, Session, greet_and_echo, make_driver
from tests.support.pools import HERE, Network, counts, listen, open_pool, reasons, settle


@asynccontextmanager
async def lending(
    driver: Driver[Session],
    serve: Callable[[trio.abc.Stream], Awaitable[object]] = greet_and_echo,
    **options: Any,
) -> AsyncIterator[ConnectionPool[Session]]:
    async with open_pool(Network(serve), driver=driver, **options) as pool:
        yield cast("ConnectionPool[Session]", pool)


async def call(pool: ConnectionPool[Session], line: bytes = b"ping") -> int:
    async with pool.connection(HERE) as conn:
        assert await conn.session.call(line) == line
        return conn.id


# ── open ────────────────────────────────────────────────────────────────────────


async def test_a_lease_offers_the_session_that_open_returned() -> None:
    driver = Plain()
    async with lending(driver) as pool:
        assert [await call(pool), await call(pool)] == [1, 1]
        assert driver.log == ["open"]


async def test_f041_what_open_raises_is_a_connect_error_of_phase_open() -> None:
    async def full(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"-ERR max number of clients reached\n")

    async with lending(Plain(), full) as pool:
        with pytest.raises(ConnectError, match="max number of clients") as caught:
            await call(pool)
        assert caught.value.phase == "open"
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        assert counts(pool) == {}
        assert pool.stats(HERE).errors == 1
        assert pool._core.subs[HERE].gate.is_failing


async def test_f039_a_server_that_hangs_up_fails_the_dial() -> None:
    async def hang_up(stream: trio.abc.Stream) -> None:
        await stream.aclose()

    async with lending(Plain(), hang_up) as pool:
        with pytest.raises(ConnectError) as caught:
            await call(pool)
        assert caught.value.phase == "open"


async def test_f040_a_silent_server_is_given_up_at_the_connect_timeout(
    autojump_clock: MockClock,
) -> None:
    async with lending(Plain(), listen, connect_timeout=3) as pool:
        with pytest.raises(ConnectTimeout) as caught:
            await call(pool)
        assert (caught.value.phase, trio.current_time()) == ("open", 3)


async def test_f044_open_that_is_cancelled_at_its_end_leaves_no_socket() -> None:
    class Late(Plain):
        async def open(self, stream: trio.abc.Stream, endpoint: AnyEndpoint) -> Session:
            session = await super().open(stream, endpoint)
            pool.clear()  # the dial is given up
            await trio.lowlevel.checkpoint()
            return session

    async with lending(Late()) as pool:
        with trio.move_on_after(0.1):
            await call(pool)


async def test_f043_open_that_closes_the_stream_has_opened_nothing() -> None:
    class Closing(Plain):
        async def open(self, stream: trio.abc.Stream, endpoint: AnyEndpoint) -> Session:
            session = await super().open(stream, endpoint)
            await stream.aclose()
            return session

    async with lending(Closing()) as pool:
        with pytest.raises(ConnectError, match="has ended"):
            await call(pool)


async def test_what_open_was_the_last_to_send_is_not_owed_an_answer_by_the_lease() -> None:
    class Introducing(Plain):
        async def open(self, stream: trio.abc.Stream, endpoint: AnyEndpoint) -> Session:
            session = await super().open(stream, endpoint)
            await stream.send_all(b"this is conpool\n")
            return session

    async with lending(Introducing(), listen_after_greeting) as pool:
        async with pool.connection(HERE):
            pass
        assert counts(pool) == {"idle": 1}


async def test_a_session_ends_for_its_lease_when_the_lease_does() -> None:
    async with lending(Plain()) as pool:
        async with pool.connection(HERE) as conn:
            assert conn.session.owes == 0
        with pytest.raises(trio.ClosedResourceError):
            conn.session  # noqa: B018


@pytest.mark.parametrize("driver", [Driver[None](), make_driver])
def test_a_driver_that_cannot_open_is_refused(driver: Any) -> None:
    with pytest.raises(ConfigError):
        ConnectionPool(driver=driver)


@pytest.mark.parametrize("name", ["is_clean", "capacity"])
def test_a_question_that_is_not_awaited_must_not_be_async(name: str) -> None:
    """A coroutine is true, whatever it would say: every session would be clean."""

    async def answer(self: Plain, session: Session) -> Any: ...

    with pytest.raises(ConfigError, match=rf"Odd\.{name}\(\) must not be async"):
        ConnectionPool(driver=type("Odd", (Plain,), {name: answer})())


# ── check ───────────────────────────────────────────────────────────────────────


async def test_an_idle_session_is_checked_before_it_is_lent() -> None:
    driver = Full()
    async with lending(driver) as pool:
        await call(pool)
        await settle()
        await call(pool)
        await settle()
        assert driver.log == ["open", "reset", "check", "reset"]
    assert driver.log[-1] == "close"


async def test_f079_a_session_that_fails_its_check_is_replaced() -> None:
    async def check(session: Session) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    async with lending(make_driver(check=check)) as pool:
        assert [await call(pool), await call(pool)] == [1, 2]
        assert reasons(pool) == {"UNHEALTHY": 1}


# ── reset ───────────────────────────────────────────────────────────────────────


async def test_a_session_is_reset_before_the_next_lease(autojump_clock: MockClock) -> None:
    async def reset(session: Session) -> None:
        await trio.sleep(1)
        session.selected = "nothing"

    async with lending(make_driver(reset=reset), max_connections_per_endpoint=1) as pool:
        async with pool.connection(HERE) as conn:
            conn.session.selected = "mine"
        assert counts(pool) == {"active": 1}
        async with pool.connection(HERE) as conn:
            assert conn.session.selected == "nothing"
            assert (conn.id, trio.current_time()) == (1, 1)


@pytest.mark.parametrize("fault", ["raises", "hangs", "leaves an answer"])
async def test_f101_a_reset_that_fails_closes_the_connection(
    fault: str, autojump_clock: MockClock
) -> None:
    async def reset(session: Session) -> None:
        if fault == "raises":
            raise ValueError
        if fault == "hangs":
            await trio.sleep_forever()
        await session.stream.send_all(b"reset\n")

    async with lending(make_driver(reset=reset), max_connections_per_endpoint=1) as pool:
        assert [await call(pool), await call(pool)] == [1, 2]
        expected = {"raises": "ERROR", "hangs": "UNHEALTHY", "leaves an answer": "INCOMPLETE"}
        assert reasons(pool)[expected[fault]] >= 1


async def test_a_reset_that_has_nothing_to_do_is_left_out() -> None:
    class Frugal(Full):
        needed: bool | Exception = False

        def needs_reset(self, session: Session) -> bool:
            if isinstance(self.needed, Exception):
                raise self.needed
            return self.needed

    driver = Frugal()
    async with lending(driver) as pool:
        for needed, times in ((False, 0), (True, 1), (False, 1), (RuntimeError("cannot say"), 2)):
            driver.needed = needed
            assert await call(pool) == 1
            await settle()
            assert pool.stats(HERE).idle == 1
            assert driver.log.count("reset") == times, needed


async def test_what_is_not_kept_is_not_reset() -> None:
    driver = Full()
    async with lending(driver, max_connection_uses=1) as pool:
        await call(pool)
        await settle()
    assert driver.log == ["open", "close"]


async def test_a_pool_that_ends_amid_a_reset_waits_for_it_and_says_goodbye(
    autojump_clock: MockClock,
) -> None:
    async def reset(session: Session) -> None:
        await trio.sleep(1)

    async def close(session: Session) -> None:
        await session.call(b"bye")

    driver = make_driver(reset=reset, close=close)
    async with lending(driver) as pool:
        await call(pool)
    assert driver.log == ["open", "reset", "close"]
    assert (trio.current_time(), reasons(pool)) == (1, {"POOL_CLOSED": 1})


async def test_a_reset_that_hangs_does_not_keep_a_pool_open(autojump_clock: MockClock) -> None:
    async def reset(session: Session) -> None:
        await trio.sleep_forever()

    async with lending(make_driver(reset=reset), shutdown_grace=3) as pool:
        await call(pool)
    assert trio.current_time() == 3


# ── close and cancel ────────────────────────────────────────────────────────────


async def test_a_goodbye_that_hangs_is_cut_off_at_the_close_timeout(
    autojump_clock: MockClock,
) -> None:
    async def close(session: Session) -> None:
        await trio.sleep_forever()

    async with lending(make_driver(close=close), close_timeout=2) as pool:
        await call(pool)
        pool.close_idle()
        assert counts(pool) == {"closing": 1}
        await trio.sleep(2.1)
        assert counts(pool) == {}


async def test_f140_a_session_that_was_cut_short_has_its_peer_told_to_stop(
    autojump_clock: MockClock,
) -> None:
    async def cancel(session: Session) -> None:
        await trio.sleep(0.5)

    driver = make_driver(cancel=cancel)
    async with lending(driver, listen_after_greeting, close_timeout=1) as pool:
        with trio.move_on_after(1):
            await call(pool)
        assert counts(pool) == {"closing": 1}
        await trio.sleep(0.6)
        assert counts(pool) == {}
        assert reasons(pool) == {"CANCELLED": 1}
    assert driver.log == ["open", "cancel"]


async def test_a_cancel_that_hangs_is_cut_off_at_the_close_timeout(
    autojump_clock: MockClock,
) -> None:
    async def cancel(session: Session) -> None:
        await trio.sleep_forever()

    async with lending(make_driver(cancel=cancel), listen_after_greeting, close_timeout=1) as pool:
        with trio.move_on_after(1):
            await call(pool)
        await trio.sleep(1.1)
        assert counts(pool) == {}


async def test_a_session_that_owes_nothing_is_closed_without_a_cancel() -> None:
    driver = Full()
    async with lending(driver) as pool:
        with pytest.raises(ValueError, match="mine"):
            async with pool.connection(HERE) as conn:
                await conn.session.call(b"ping")
                pool.discard(conn)
                raise ValueError("mine")
        assert reasons(pool) == {"DISCARDED": 1}
    assert "cancel" not in driver.log


async def listen_after_greeting(stream: trio.abc.Stream) -> None:
    await stream.send_all(b"hello\n")
    await listen(stream)


# ── is_clean ────────────────────────────────────────────────────────────────────


async def test_a_driver_that_says_so_keeps_what_raised() -> None:
    """A unique violation costs no login."""
    async with lending(Full()) as pool:
        with pytest.raises(ValueError, match="unique"):
            async with pool.connection(HERE) as conn:
                await conn.session.call(b"insert")
                raise ValueError("unique")
        assert await call(pool) == 1


async def test_a_driver_that_is_owed_an_answer_closes_what_did_not_raise() -> None:
    async with lending(Full(), listen_after_greeting) as pool:
        async with pool.connection(HERE) as conn:
            conn.session.owes += 1
        await settle()
        assert reasons(pool) == {"INCOMPLETE": 1}


async def test_an_interrupted_send_is_never_excused() -> None:
    def is_clean(session: Session) -> bool:
        return True

    driver = make_driver(is_clean=is_clean)
    async with lending(driver) as pool:
        async with pool.connection(HERE) as conn:
            conn._lease.entry.link.exchange.taints |= 1
        assert reasons(pool) == {"INCOMPLETE": 1}


async def test_an_is_clean_that_raises_has_said_no() -> None:
    def is_clean(session: Session) -> bool:
        raise ValueError

    async with lending(make_driver(is_clean=is_clean)) as pool:
        await call(pool)
        assert reasons(pool) == {"INCOMPLETE": 1}


async def test_without_is_clean_the_bytes_decide() -> None:
    async with lending(Plain()) as pool:
        async with pool.connection(HERE) as conn:
            await conn.session.stream.send_all(b"ping\n")
        assert reasons(pool) == {"INCOMPLETE": 1}


# ── run ─────────────────────────────────────────────────────────────────────────


async def test_a_companion_lives_as_long_as_its_connection(autojump_clock: MockClock) -> None:
    lives: list[str] = []

    async def run(session: Session) -> None:
        lives.append("born")
        try:
            await trio.sleep_forever()
        finally:
            lives.append("dead")

    async with lending(make_driver(run=run)) as pool:
        await call(pool)
        await settle()
        assert lives == ["born"]
        pool.close_idle()
        await settle()
        assert lives == ["born", "dead"]
        assert counts(pool) == {}


@pytest.mark.parametrize("raises", [False, True])
async def test_a_companion_that_ends_takes_the_connection_with_it(
    raises: bool, autojump_clock: MockClock
) -> None:
    async def run(session: Session) -> None:
        await trio.sleep(1)
        if raises:
            raise OSError

    async with lending(make_driver(run=run)) as pool:
        async with pool.connection(HERE) as conn:
            await trio.sleep(2)
            with pytest.raises(trio.BrokenResourceError):
                conn.session  # noqa: B018
            with pytest.raises(trio.BrokenResourceError):
                await conn.receive_some()
        assert reasons(pool) == {"ERROR" if raises else "PEER_CLOSED": 1}
        assert pool.stats(HERE).closed_by_reason[CloseReason.DISCARDED] == 0


async def test_a_session_that_needs_no_companion_is_probed(autojump_clock: MockClock) -> None:
    """One driver may speak two protocols, only one of which needs `run`."""

    async def run(session: Session) -> None:
        raise AssertionError

    def has_companion(session: Session) -> bool:
        return False

    async with lending(make_driver(run=run, has_companion=has_companion)) as pool:
        await call(pool)
        await call(pool)
        async with pool.connection(HERE) as conn:
            await conn.session.stream.send_all(b"ping\n")
        assert reasons(pool) == {"INCOMPLETE": 1}


async def test_the_driver_judges_what_its_companion_reads(autojump_clock: MockClock) -> None:
    """A companion is always inside a receive, which alone must not make an exchange unclean."""

    async def run(session: Session) -> None:
        while await session.stream.receive_some():
            pass

    def is_clean(session: Session) -> bool:
        return True

    async with lending(make_driver(run=run, is_clean=is_clean)) as pool:
        for _ in range(2):
            async with pool.connection(HERE):
                await settle()
        assert (counts(pool), pool.stats(HERE).total_created) == ({"idle": 1}, 1)


async def test_a_driver_that_cannot_say_has_a_companion(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def run(session: Session) -> None:
        await trio.sleep_forever()

    def has_companion(session: Session) -> bool:
        raise ValueError("mine")

    driver = make_driver(run=run, has_companion=has_companion)
    async with lending(driver) as pool:
        await call(pool)
        await settle()
        assert "run" in driver.log
    assert "has_companion() raised" in caplog.text


@pytest.mark.parametrize("word", ["close", "cancel"])
async def test_the_last_word_is_not_said_while_the_companion_still_reads(
    word: str, autojump_clock: MockClock
) -> None:
    order: list[str] = []

    async def run(session: Session) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            order.append("run")

    async def speak(session: Session) -> None:
        order.append(word)
        await trio.lowlevel.checkpoint()

    def is_clean(session: Session) -> bool:
        return word == "close"

    driver = make_driver(run=run, is_clean=is_clean, **{word: speak})
    async with lending(driver, close_timeout=5) as pool:
        await call(pool)
    assert order == ["run", word]


async def test_a_companion_that_reads_does_not_make_its_connection_unclean() -> None:
    """It always waits for the next bytes: that says nothing about an exchange."""

    async def run(session: Session) -> None:
        while part := await session.stream.receive_some():
            session.inbox.append(bytes(part))
            session.arrived.set()

    driver = make_driver(run=run)
    async with lending(driver) as pool:
        for _ in range(2):
            async with pool.connection(HERE) as conn:
                conn.session.arrived = trio.Event()
                await conn.session.stream.send_all(b"ping\n")
                await conn.session.arrived.wait()
                assert await conn.is_healthy()
                assert conn.id == 1
        assert reasons(pool) == {}


# ── affinity ────────────────────────────────────────────────────────────────────


async def take(pool: ConnectionPool[Any], affinity: object) -> int:
    async with pool.connection(HERE, affinity=cast("Any", affinity)) as conn:
        return conn.id


async def lay_out(pool: ConnectionPool[Any], *keys: object) -> None:
    """Have one idle connection for each of `keys`, which it has served."""
    leases = [await pool.acquire(HERE, affinity=cast("Any", key)) for key in keys]
    for lease in leases:
        pool.release(lease)


async def test_the_connection_that_served_a_key_last_serves_it_again() -> None:
    async with open_pool() as pool:
        await lay_out(pool, "a", "b", "c")
        assert [await take(pool, key) for key in "abcabc"] == [1, 2, 3, 1, 2, 3]
        assert await take(pool, None) == 3


async def test_nobody_waits_for_a_key() -> None:
    async with open_pool() as pool:
        await lay_out(pool, "a", "b")
        async with pool.connection(HERE, affinity="a") as first:
            async with pool.connection(HERE, affinity="a") as second:
                assert (first.id, second.id) == (1, 2)
            assert await take(pool, "a") == 2
        assert await take(pool, "unheard of") == 1


async def test_keys_are_forgotten_with_their_connections() -> None:
    async with open_pool() as pool:
        await lay_out(pool, "a", "b")
        for number in range(1000):
            await take(pool, number)
        sub = pool._core.subs[HERE]
        assert len(sub.known) <= 2
        pool.close_idle()
        assert not sub.known


async def test_what_has_lapsed_is_not_lent_for_its_key(autojump_clock: MockClock) -> None:
    async with open_pool(max_idle_time=10, reap_interval=100) as pool:
        await lay_out(pool, "a", "b")
        await trio.sleep(5)
        assert await take(pool, "b") == 2
        await trio.sleep(6)
        assert await take(pool, "a") == 2
        assert counts(pool) == {"idle": 2}  # nobody has looked at the first yet


async def test_a_key_must_be_hashable() -> None:
    async with open_pool() as pool:
        await lay_out(pool, "a")
        with pytest.raises(TypeError, match="unhashable"):
            await take(pool, [])
        assert counts(pool) == {"idle": 1}


async def test_a_companion_whose_nursery_fails_as_the_pool_ends_does_not_fail_the_block() -> None:
    """Its group has a cancellation and an error of the stream that was closed beneath it."""

    async def run(session: Session) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise trio.ClosedResourceError

    async with lending(make_driver(run=run)) as pool:
        await call(pool)


# ── an error beside a cancellation, in one group ────────────────────────────────


async def fail_when_cancelled(*_: object) -> bool:
    """What a nursery does in which one task is cancelled and another fails of that."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("of the cancellation")


async def test_a_cancel_that_fails_as_its_time_is_up_leaves_no_stream_open(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def cancel(session: Session) -> None:
        await fail_when_cancelled()

    async with lending(make_driver(cancel=cancel), listen_after_greeting, close_timeout=1) as pool:
        with trio.move_on_after(1):
            await call(pool)
        await trio.sleep(1.1)
        assert counts(pool) == {}
        network = cast("Network", pool._engine.dialler._connector)
        assert network.live == 0
    assert not caplog.records


async def test_a_check_that_fails_as_its_time_is_up_means_no(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(session: Session) -> bool:
        return await fail_when_cancelled()

    async with lending(make_driver(check=check), health_check_timeout=1) as pool:
        async with pool.connection(HERE) as conn:
            assert not await conn.is_healthy()
            conn.mark_clean()
        assert [await call(pool), await call(pool)] == [2, 3]
        assert reasons(pool) == {"UNHEALTHY": 2}
    assert not caplog.records


async def test_a_companion_that_is_cancelled_within_a_nursery_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run(session: Session) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()

    async with lending(make_driver(run=run)) as pool:
        await call(pool)
    assert not caplog.records

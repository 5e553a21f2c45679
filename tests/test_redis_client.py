"""`examples/redis_client.py` against real servers, and scripted ones where no real one would do."""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import hiredis
import pytest
import redis_client
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

import conpool
from conpool import CloseReason
from conpool.testing import (
    MemoryConnector,
    assert_quiescent,
    cancel_everywhere,
    explore_schedules,
    fixed_order,
)

from .servers import RedisTLS, Valkey
from .support.examples import LOOPBACK, run_example

COMMANDS = int(os.environ.get("CONPOOL_COMMANDS", "600"))
"""How many commands the tests with random cancellations run."""


def url_of(server: Valkey, account: str = "", database: int = 0) -> str:
    return f"redis://{account}{LOOPBACK}:{server.port}/{database}"


def endpoint_of(server: Valkey) -> conpool.Endpoint:
    return conpool.Endpoint(LOOPBACK, server.port)


@pytest.fixture
async def direct(valkey: Valkey) -> AsyncIterator[redis_client.Session]:
    """A session without a pool, that deletes what the test leaves behind."""
    async with await trio.open_tcp_stream(LOOPBACK, valkey.port) as stream:
        session = redis_client.Session(stream)
        yield session
        with trio.CancelScope(shield=True):
            await session.command("FLUSHALL")


def test_example_runs_from_the_command_line(valkey: Valkey) -> None:
    printed = run_example("redis_client.py", url_of(valkey), "--tasks", 5, "--rounds", 4)
    assert "5 tasks counted to 20" in printed


async def test_tasks_count_together(valkey: Valkey) -> None:
    assert await redis_client.main(url_of(valkey), tasks=50, rounds=20) == 1000


async def test_idle_connection_answers_ping_before_it_is_lent(valkey: Valkey) -> None:
    async def count_pings() -> int:
        async with await trio.open_tcp_stream(LOOPBACK, valkey.port) as stream:
            session = redis_client.Session(stream)
            report = (await session.command("INFO", "commandstats")).decode()
        lines = [line for line in report.splitlines() if line.startswith("cmdstat_ping:")]
        return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in lines)

    before = await count_pings()
    endpoint = endpoint_of(valkey)
    async with redis_client.open_pool(conpool.PoolConfig()) as pool:
        for _ in range(4):
            await redis_client.execute(pool, endpoint, "GET", "nothing")
        assert pool.stats(endpoint).total_created == 1
    assert await count_pings() == before + 3


async def test_connection_that_answers_no_ping_is_replaced() -> None:
    config = conpool.PoolConfig(health_check_timeout=0.1)
    with Valkey() as valkey:
        endpoint = endpoint_of(valkey)
        async with redis_client.open_pool(config) as pool:
            await redis_client.execute(pool, endpoint, "GET", "nothing")
            async with await trio.open_tcp_stream(LOOPBACK, valkey.port) as stream:
                # For half a second the server answers nobody, PING included.
                await redis_client.Session(stream).command("CLIENT", "PAUSE", 500, "ALL")
            assert await redis_client.execute(pool, endpoint, "GET", "nothing") is None
            stats = pool.stats(endpoint)
    assert stats.closed_by_reason[CloseReason.UNHEALTHY] == 1
    assert stats.total_created == 2


async def test_refusal_costs_no_connection(valkey: Valkey) -> None:
    endpoint = endpoint_of(valkey)
    async with redis_client.open_pool() as pool:
        await redis_client.execute(pool, endpoint, "SET", "conpool:word", "word", "EX", 60)
        with pytest.raises(hiredis.ReplyError, match="not an integer"):
            await redis_client.execute(pool, endpoint, "INCR", "conpool:word")
        assert await redis_client.execute(pool, endpoint, "GET", "conpool:word") == b"word"
        assert pool.stats(endpoint).total_created == 1


async def test_reply_that_breaks_off_breaks_the_connection() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"$4\r\nhal")
    await theirs.send_eof()
    session = redis_client.Session(ours)
    with pytest.raises(trio.BrokenResourceError, match="hung up"):
        await session.command("PING")
    assert not redis_client.RedisDriver().is_clean(session)


async def test_session_with_more_than_was_asked_for_is_not_clean() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"+OK\r\n+OK\r\n")
    session = redis_client.Session(ours)
    assert await session.command("PING") == b"OK"
    assert not redis_client.RedisDriver().is_clean(session)


async def test_logs_in_with_the_account_of_the_url() -> None:
    with Valkey() as valkey:
        admin = conpool.Endpoint.from_url(url_of(valkey, database=2))
        app = conpool.Endpoint.from_url(url_of(valkey, "app:secret@", database=2))
        wrong = conpool.Endpoint.from_url(url_of(valkey, "app:guess@", database=2))
        async with redis_client.open_pool() as pool:
            await redis_client.execute(
                pool, admin, "ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all"
            )
            await redis_client.execute(pool, admin, "SET", "word", "in the second")
            assert await redis_client.execute(pool, app, "ACL", "WHOAMI") == b"app"
            assert await redis_client.execute(pool, app, "GET", "word") == b"in the second"
            with pytest.raises(conpool.ConnectError, match="WRONGPASS") as caught:
                await redis_client.execute(pool, wrong, "GET", "word")
            assert caught.value.phase == "open"
            assert "guess" not in str(caught.value)
            assert pool.stats(app).total_created == 1


async def test_login_that_is_missing_fails_the_dial() -> None:
    with Valkey() as valkey:
        async with redis_client.open_pool() as pool:
            await redis_client.execute(pool, endpoint_of(valkey), "CONFIG", "SET", "requirepass", 1)
            pool.clear()
            with pytest.raises(conpool.ConnectError, match="NOAUTH") as caught:
                await redis_client.execute(pool, endpoint_of(valkey), "GET", "word")
            assert caught.value.phase == "open"


async def test_server_that_is_full_says_so() -> None:
    with Valkey(maxclients=1) as valkey:
        async with await trio.open_tcp_stream(LOOPBACK, valkey.port) as stream:
            await redis_client.Session(stream).command("PING")
            async with redis_client.open_pool(conpool.PoolConfig(outage_grace=0)) as pool:
                with pytest.raises(conpool.ConnectError, match="max number of clients"):
                    await redis_client.execute(pool, endpoint_of(valkey), "PING")


# ── the protocol ────────────────────────────────────────────────────────────────


async def talk(*replies: bytes, login: conpool.Login) -> redis_client.Session:
    """Log in to a server that gives these replies, whatever it is asked."""
    ours, theirs = memory_stream_pair()
    await theirs.send_all(b"".join(replies))
    await theirs.send_eof()
    session = redis_client.Session(ours)
    await session.log_in(login)
    assert redis_client.RedisDriver().is_clean(session)
    return session


NO_HELLO = b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n"


async def test_server_that_does_not_know_hello_is_spoken_to_in_resp2() -> None:
    session = await talk(b"+OK\r\n", NO_HELLO, b"+OK\r\n", login=conpool.Login(None, "pw", "2"))
    assert session.protocol == 2


async def test_refusal_of_auth_does_not_show_the_password() -> None:
    echo = b"-ERR unknown command 'AUTH', with args beginning with: 'secret' \r\n"
    with pytest.raises(hiredis.ReplyError, match="unknown command 'AUTH'") as caught:
        await talk(echo, login=conpool.Login(None, "secret"))
    assert "secret" not in str(caught.value)


@pytest.fixture(scope="module")
def old_valkey() -> Iterator[Valkey]:
    """A server without HELLO, as before Redis 6."""
    with Valkey(rename_command=("HELLO", "")) as server:
        yield server


async def test_resp3_has_maps_and_resp2_has_lists(valkey: Valkey, old_valkey: Valkey) -> None:
    async with redis_client.open_pool() as pool:
        for server, protocol, shape in (
            (valkey, 3, {b"a": b"1"}),
            (old_valkey, 2, [b"a", b"1"]),
        ):
            async with pool.connection(endpoint_of(server)) as conn:
                session = conn.session
                assert session.protocol == protocol
                replies = await session.transaction(("HSET", "m", "a", 1), ("HGETALL", "m"))
                assert replies == [1, shape]
                await session.command("DEL", "m")


async def test_over_tls(redis_tls: RedisTLS, client_ssl: ssl.SSLContext) -> None:
    endpoint = conpool.Endpoint("localhost", redis_tls.port, tls=conpool.TLS(client_ssl))
    for pool in (redis_client.open_pool(), redis_client.open_shared_pool()):
        async with pool:
            for number in range(10):
                assert await redis_client.execute(pool, endpoint, "ECHO", number) == b"%d" % number
            assert pool.stats(endpoint).total_created == 1


async def test_over_a_unix_socket_into_another_database(valkey: Valkey) -> None:
    endpoint = conpool.UnixEndpoint(valkey.path, login=conpool.Login(database="3"))
    async with redis_client.open_pool() as pool:
        info = await redis_client.execute(pool, endpoint, "CLIENT", "INFO")
        assert b" db=3 " in info
        assert b" resp=3" in info


# ── pipelines and transactions ──────────────────────────────────────────────────


@pytest.fixture(params=["alone", "shared"])
async def pool(request: pytest.FixtureRequest) -> AsyncIterator[redis_client.AnyPool]:
    alone = request.param == "alone"
    made: redis_client.AnyPool
    made = redis_client.open_pool() if alone else redis_client.open_shared_pool()
    async with made:
        yield made


async def test_pipeline_gets_all_replies(
    valkey: Valkey, pool: redis_client.AnyPool, direct: redis_client.Session
) -> None:
    async with pool.connection(endpoint_of(valkey)) as conn:
        replies = await conn.session.pipeline(*[("INCR", "n")] * 500, ("GET", "n"), ("PING",))
        assert replies == [*range(1, 501), b"500", b"PONG"]
        assert await conn.session.pipeline() == []


async def test_pipeline_raises_a_refusal_when_all_replies_are_read(
    valkey: Valkey, pool: redis_client.AnyPool, direct: redis_client.Session
) -> None:
    with pytest.raises(hiredis.ReplyError, match="not an integer"):
        async with pool.connection(endpoint_of(valkey)) as conn:
            await conn.session.pipeline(("SET", "w", "word"), ("INCR", "w"), ("SET", "w", "last"))
    assert await redis_client.execute(pool, endpoint_of(valkey), "GET", "w") == b"last"
    assert pool.stats(endpoint_of(valkey)).total_created == 1


async def test_transaction_runs_all_or_nothing(
    valkey: Valkey, pool: redis_client.AnyPool, direct: redis_client.Session
) -> None:
    async with pool.connection(endpoint_of(valkey)) as conn:
        session = conn.session
        assert await session.transaction(("SET", "a", 1), ("INCR", "a")) == [b"OK", 2]
        with pytest.raises(hiredis.ReplyError, match="unknown command"):
            await session.transaction(("INCR", "a"), ("NONSENSE",))
        assert await session.command("GET", "a") == b"2"
        with pytest.raises(hiredis.ReplyError, match="WRONGTYPE"):
            await session.transaction(("LPUSH", "a", 1), ("INCR", "a"))
        assert await session.command("GET", "a") == b"3"
    assert pool.stats(endpoint_of(valkey)).idle == 1


async def test_update_is_tried_again_when_somebody_was_faster(
    valkey: Valkey, direct: redis_client.Session
) -> None:
    def add(value: bytes | None) -> int:
        return int(value or 0) + 1

    async with redis_client.open_pool() as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(redis_client.update, pool, endpoint_of(valkey), "n", add)
        assert await redis_client.execute(pool, endpoint_of(valkey), "GET", "n") == b"10"
        assert pool.stats(endpoint_of(valkey)).total_closed == 0


async def test_transaction_says_that_a_watched_key_has_changed(
    valkey: Valkey, direct: redis_client.Session
) -> None:
    async with redis_client.open_pool() as pool, pool.connection(endpoint_of(valkey)) as conn:
        await conn.session.command("WATCH", "n")
        await direct.command("SET", "n", "other")
        assert await conn.session.transaction(("SET", "n", "mine")) is None
        assert await direct.command("GET", "n") == b"other"


@pytest.mark.parametrize(
    "command", [("WATCH", "n"), (b"select", 2), ("MULTI",), ("CLIENT", "TRACKING", "ON")]
)
async def test_connection_that_a_caller_has_altered_is_not_handed_on(
    valkey: Valkey, command: tuple[Any, ...]
) -> None:
    async with redis_client.open_pool() as pool:
        await redis_client.execute(pool, endpoint_of(valkey), *command)
        assert b" db=0 " in await redis_client.execute(pool, endpoint_of(valkey), "CLIENT", "INFO")
        stats = pool.stats(endpoint_of(valkey))
    assert stats.total_created == 2
    assert stats.closed_by_reason[CloseReason.INCOMPLETE] == 2  # CLIENT counts, too


async def test_unwatch_makes_the_connection_fit_again(valkey: Valkey) -> None:
    async with redis_client.open_pool() as pool:
        async with pool.connection(endpoint_of(valkey)) as conn:
            await conn.session.pipeline(("WATCH", "n"), ("UNWATCH",))
        assert pool.stats(endpoint_of(valkey)).idle == 1


# ── commands that block ─────────────────────────────────────────────────────────


async def test_blocking_command_waits_for_what_comes(
    valkey: Valkey, direct: redis_client.Session
) -> None:
    got: list[Any] = []

    async with redis_client.open_pool() as pool:

        async def wait() -> None:
            got.append(await redis_client.execute(pool, endpoint_of(valkey), "BLPOP", "list", 0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await until_blocked(direct, 1)
            await direct.command("RPUSH", "list", "element")
        assert got == [[b"list", b"element"]]
        assert pool.stats(endpoint_of(valkey)).idle == 1


async def test_blocking_command_that_is_cancelled_takes_nothing(
    valkey: Valkey, direct: redis_client.Session
) -> None:
    async with redis_client.open_pool() as pool, trio.open_nursery() as nursery:
        nursery.start_soon(redis_client.execute, pool, endpoint_of(valkey), "BLPOP", "list", 0)
        await until_blocked(direct, 1)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await until_blocked(direct, 0)
            await redis_client.execute(pool, endpoint_of(valkey), "RPUSH", "list", "element")
            popped = await redis_client.execute(pool, endpoint_of(valkey), "LPOP", "list")
    assert popped == b"element"
    assert pool.stats(endpoint_of(valkey)).closed_by_reason[CloseReason.CANCELLED] == 1


async def until_blocked(direct: redis_client.Session, count: int) -> None:
    """Wait until so many clients of the server are blocked."""
    with trio.fail_after(10):
        while b"blocked_clients:%d\r\n" % count not in await direct.command("INFO", "clients"):
            pass


# ── messages ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("server", "protocol"), [("valkey", 3), ("old_valkey", 2)])
async def test_messages_arrive_and_the_lease_is_retired(
    request: pytest.FixtureRequest, server: str, protocol: int
) -> None:
    endpoint = endpoint_of(request.getfixturevalue(server))
    async with redis_client.open_pool() as pool:
        async with redis_client.subscribed(
            pool, endpoint, "news", "more", patterns=["w*"]
        ) as session:
            assert session.protocol == protocol
            for channel in ("news", "other", "weather", "more"):
                await redis_client.execute(pool, endpoint, "PUBLISH", channel, f"on {channel}")
            with trio.move_on_after(0):
                await session.receive_message()  # cancelled: it is not lost
            assert [await session.receive_message() for _ in range(3)] == [
                (b"news", b"on news", None),
                (b"weather", b"on weather", b"w*"),
                (b"more", b"on more", None),
            ]
        stats = pool.stats(endpoint)
        assert (stats.total_created, stats.idle, stats.total_closed) == (2, 1, 1)


async def test_message_may_come_before_the_last_confirmation() -> None:
    ours, theirs = memory_stream_pair()
    session = redis_client.Session(ours)
    await theirs.send_all(
        b">3\r\n+subscribe\r\n+a\r\n:1\r\n"
        b">3\r\n+message\r\n+a\r\n+early\r\n"
        b">2\r\n+invalidate\r\n+key\r\n"
        b">3\r\n+subscribe\r\n+b\r\n:2\r\n"
    )
    await session.subscribe("a", "b")
    assert await session.receive_message() == (b"a", b"early", None)


async def test_subscription_that_is_refused_raises(
    valkey: Valkey, direct: redis_client.Session
) -> None:
    await direct.command("ACL", "SETUSER", "deaf", "on", ">pw", "~*", "resetchannels", "+@all")
    endpoint = conpool.Endpoint(LOOPBACK, valkey.port, login=conpool.Login("deaf", "pw"))
    async with redis_client.open_pool() as pool:
        with pytest.raises(hiredis.ReplyError, match="NOPERM"):
            async with redis_client.subscribed(pool, endpoint, "news"):
                pass
        with pytest.raises(ValueError, match="SUBSCRIBE has no reply: use subscribe"):
            await redis_client.execute(pool, endpoint, "subscribe", "news")
        stats = pool.stats(endpoint)
    assert stats.total_created == 2


async def test_news_between_replies_is_passed_over() -> None:
    for kind in (redis_client.Session, redis_client.SharedSession):
        ours, theirs = memory_stream_pair()
        session = kind(ours)
        async with trio.open_nursery() as nursery:
            if isinstance(session, redis_client.SharedSession):
                nursery.start_soon(session.serve)
            await theirs.send_all(b">2\r\n+invalidate\r\n+key\r\n+PONG\r\n")
            assert await session.command("PING") == b"PONG"
            nursery.cancel_scope.cancel()


# ── many tasks on one connection ────────────────────────────────────────────────


def test_shared_example_runs_from_the_command_line(valkey: Valkey) -> None:
    printed = run_example("redis_client.py", url_of(valkey), "--tasks", 20, "--shares", 20)
    assert "20 tasks counted to 400" in printed


async def test_shared_session_serves_many_tasks_at_once(valkey: Valkey) -> None:
    async with redis_client.open_shared_pool(shares=100) as pool:
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(echo, pool, endpoint_of(valkey), number)
        stats = pool.stats(endpoint_of(valkey))
    assert stats.total_created == 1
    assert stats.acquired == 100


async def echo(pool: redis_client.AnyPool, endpoint: conpool.AnyEndpoint, number: int) -> None:
    assert await redis_client.execute(pool, endpoint, "ECHO", number) == b"%d" % number


@pytest.mark.parametrize(
    "command",
    [
        ("WATCH", "key"),
        ("SELECT", 1),
        ("CLIENT", "REPLY", "OFF"),
        (b"blpop", "list", 0),
        ("XREAD", "block", 0, "STREAMS", "s", "$"),
        ("SUBSCRIBE", "news"),
    ],
)
async def test_shared_session_refuses_what_would_touch_others(
    valkey: Valkey, command: tuple[Any, ...]
) -> None:
    async with redis_client.open_shared_pool() as pool:
        async with pool.connection(endpoint_of(valkey)) as conn:
            for refused in (
                lambda: conn.session.command(*command),
                lambda: conn.session.transaction(command),
                lambda: conn.session.subscribe("news"),
            ):
                with pytest.raises(ValueError, match="takes a session of its own"):
                    await refused()
            assert await conn.session.command("XREAD", "STREAMS", "s", "0") is None
        assert pool.stats(endpoint_of(valkey)).total_created == 1


async def test_shared_session_wakes_all_when_the_server_hangs_up() -> None:
    hung_up = 0

    async def hang_up(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"%0\r\n")  # HELLO
        await stream.receive_some()
        await stream.send_all(b"+only one\r\n")
        await stream.aclose()

    async def ask(pool: redis_client.AnyPool) -> None:
        nonlocal hung_up
        async with pool.connection(conpool.Endpoint("a.example", 1)) as conn:
            session = conn.session
            try:
                assert await session.command("PING") == b"only one"
            except trio.BrokenResourceError:
                hung_up += 1
            else:
                await wait_all_tasks_blocked()
            with pytest.raises(trio.BrokenResourceError):
                conn.session.note(("PING",))
            with pytest.raises(redis_client.HungUp):
                await session.command("PING")

    connector = MemoryConnector(hang_up)
    driver = redis_client.SharedRedisDriver()
    async with conpool.ConnectionPool(connector=connector, driver=driver) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask, pool)
        stats = pool.stats(conpool.Endpoint("a.example", 1))
    assert hung_up == 4
    assert stats.closed_by_reason[CloseReason.PEER_CLOSED] == stats.total_created == 1


async def test_shared_session_that_gets_no_answer_takes_no_new_leases(
    autojump_clock: MockClock,
) -> None:
    async def say_hello_only(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"%0\r\n")
        async for _ in stream:
            pass

    endpoint = conpool.Endpoint("a.example", 1)
    driver = redis_client.SharedRedisDriver(patience=5.0)
    connector = MemoryConnector(say_hello_only)
    async with (
        conpool.ConnectionPool(connector=connector, driver=driver) as pool,
        trio.open_nursery() as nursery,
    ):
        for after, connections in ((0, 1), (4, 1), (2, 2)):
            await trio.sleep(after)
            nursery.start_soon(redis_client.execute, pool, endpoint, "PING")
            await wait_all_tasks_blocked()
            assert pool.stats(endpoint).total_created == connections
        nursery.cancel_scope.cancel()


# ── cancelled everywhere, in every order ────────────────────────────────────────


async def serve_echo(stream: trio.abc.Stream) -> None:
    """Answer ECHO a second later, and anything else at once."""
    requests = hiredis.Reader(notEnoughData=None)
    async for chunk in stream:
        requests.feed(bytes(chunk))
        while (request := requests.gets()) is not None:
            if request[0] == b"ECHO":
                await trio.sleep(1)
                await stream.send_all(b"$%d\r\n%b\r\n" % (len(request[1]), request[1]))
            else:
                await stream.send_all(b"+OK\r\n")


IN_MEMORY = conpool.Endpoint("redis.example", 6379)
DRIVERS: list[conpool.Driver[Any]] = [
    redis_client.RedisDriver(),
    redis_client.SharedRedisDriver(),
]
by_driver = pytest.mark.parametrize("driver", DRIVERS, ids=["alone", "shared"])


def open_in_memory(driver: conpool.Driver[Any]) -> conpool.ConnectionPool[Any]:
    # Checks would make the walks longer, and show nothing new.
    config = conpool.PoolConfig(max_connections_per_endpoint=1, health_check_after=60)
    return conpool.ConnectionPool(config, driver=driver, connector=MemoryConnector(serve_echo))


@by_driver
def test_no_cancellation_leaves_a_reply_to_the_next_caller(driver: conpool.Driver[Any]) -> None:
    async def scenario(scope: trio.CancelScope) -> None:
        async with open_in_memory(driver) as pool:
            with scope:
                await echo(pool, IN_MEMORY, 1)
            async with pool.connection(IN_MEMORY) as conn:
                assert await conn.session.pipeline(("PING",), ("ECHO", "x")) == [b"OK", b"x"]
            await wait_all_tasks_blocked()
            assert_quiescent(pool)

    assert cancel_everywhere(scenario, clock=lambda: MockClock(autojump_threshold=0)) > 5


def test_two_callers_get_their_own_replies_in_every_order() -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            with fixed_order():
                pool = await stack.enter_async_context(open_in_memory(DRIVERS[0]))
                await pool.warm(IN_MEMORY, 1)
            async with trio.open_nursery() as nursery:
                for number in (1, 2):
                    nursery.start_soon(echo, pool, IN_MEMORY, number)
            with fixed_order():
                assert_quiescent(pool)
                await stack.aclose()

    assert explore_schedules(scenario) > 1


# ── cancelled at random ─────────────────────────────────────────────────────────


async def test_each_answer_belongs_to_its_question(
    valkey: Valkey, pool: redis_client.AnyPool
) -> None:
    """A tenth of the commands is cancelled at random."""
    random = Random(7)
    answered = cancelled = 0

    async def ask(numbers: range) -> None:
        nonlocal answered, cancelled
        for number in numbers:
            deadline = random.uniform(0, 0.002) if random.random() < 0.1 else math.inf
            with trio.move_on_after(deadline) as scope:
                async with pool.connection(endpoint_of(valkey)) as conn:
                    replies = await conn.session.pipeline(("ECHO", number), ("ECHO", -number))
                assert replies == [b"%d" % number, b"%d" % -number]
                answered += 1
            cancelled += scope.cancelled_caught

    async with trio.open_nursery() as nursery:
        for task in range(20):
            nursery.start_soon(ask, range(task, COMMANDS, 20))
    assert answered + cancelled == COMMANDS
    assert answered >= COMMANDS * 0.8
    assert pool.stats(endpoint_of(valkey)).active == 0
    print(f"{answered} answered, {cancelled} cancelled", pool.all_stats())

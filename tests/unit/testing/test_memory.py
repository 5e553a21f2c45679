from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from conpool._values.config_error import ConfigError
from conpool._values.endpoint import Endpoint
from conpool.testing import MemoryConnector, cancel_everywhere, explore_schedules
from tests.support.pools import echo
from tests.unit.testing.toys import mock_clock

MemoryStream: TypeAlias = trio.StapledStream[
    trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream
]
HERE = Endpoint("db.example", 5432)


async def hang(_: trio.abc.Stream) -> None:
    await trio.sleep_forever()


async def open_memory(connector: MemoryConnector) -> MemoryStream:
    stream = await connector.connect(HERE)
    assert isinstance(stream, trio.StapledStream)
    return stream


def close_now(stream: MemoryStream) -> None:
    stream.send_stream.close()
    stream.receive_stream.close()


def system_tasks() -> list[str]:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    names = (task.name for nursery in root.child_nurseries for task in nursery.child_tasks)
    return [name for name in names if name.startswith("memory server")]


# ── talking ─────────────────────────────────────────────────────────────────────


async def test_each_connection_has_a_server_of_its_own() -> None:
    connector = MemoryConnector(echo)
    async with await connector.connect(HERE) as one, await connector.connect(HERE) as two:
        await one.send_all(b"one")
        await two.send_all(b"two")
        assert await one.receive_some() == b"one"
        assert await two.receive_some() == b"two"
        assert connector.live == 2
        assert system_tasks() == ["memory server of db.example:5432"] * 2
    assert connector.live == 0


async def test_server_that_returns_closes_the_connection() -> None:
    async def greet(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"hello")

    stream = await MemoryConnector(greet).connect(HERE)
    assert await stream.receive_some() == b"hello"
    assert await stream.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")


async def test_connect_takes_its_delay(autojump_clock: trio.testing.MockClock) -> None:
    connector = MemoryConnector(echo, delay=2.5)
    await connector.connect(HERE)
    assert autojump_clock.current_time() == 2.5


async def test_infinite_delay_never_connects(autojump_clock: trio.testing.MockClock) -> None:
    connector = MemoryConnector(echo, delay=math.inf)
    with trio.move_on_after(86_400) as scope:
        await connector.connect(HERE)
    assert scope.cancelled_caught
    assert autojump_clock.current_time() == 86_400
    assert connector.live == 0


@pytest.mark.parametrize("delay", [-1, math.nan, "1", True])
def test_delay_must_be_a_duration(delay: float) -> None:
    with pytest.raises(ConfigError, match="delay must be"):
        MemoryConnector(echo, delay=delay)


# ── live ────────────────────────────────────────────────────────────────────────


async def test_live_counts_until_both_halves_are_closed_by_force() -> None:
    connector = MemoryConnector(hang)
    stream = await open_memory(connector)
    stream.send_stream.close()
    stream.send_stream.close()
    assert connector.live == 1
    stream.receive_stream.close()
    assert connector.live == 0
    stream.receive_stream.close()
    await stream.aclose()
    assert connector.live == 0
    assert repr(connector) == "<MemoryConnector, 0 live, 0 errors>"


async def test_live_notices_a_half_close_and_then_the_close() -> None:
    connector = MemoryConnector(echo)
    stream = await open_memory(connector)
    await stream.send_eof()
    assert connector.live == 1
    await stream.aclose()
    assert connector.live == 0


async def test_live_still_counts_what_the_server_closed() -> None:
    async def refuse(_: trio.abc.Stream) -> None:
        pass

    connector = MemoryConnector(refuse)
    stream = await connector.connect(HERE)
    await wait_all_tasks_blocked()
    assert connector.live == 1
    await stream.aclose()
    assert connector.live == 0


# ── the end of a server ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("serve", [echo, hang])
async def test_server_ends_when_its_client_closes(
    serve: Callable[[trio.abc.Stream], Awaitable[object]],
) -> None:
    connector = MemoryConnector(serve)
    stream = await open_memory(connector)
    await wait_all_tasks_blocked()
    close_now(stream)
    await wait_all_tasks_blocked()
    assert not system_tasks()
    assert connector.errors == ()


async def test_server_that_waits_to_receive_gets_the_end_of_file_first() -> None:
    seen: list[bytes] = []

    async def record(stream: trio.abc.Stream) -> None:
        while data := await stream.receive_some():
            seen.append(bytes(data))
        seen.append(b"end")
        await trio.lowlevel.checkpoint()
        seen.append(b"not reached")

    stream = await open_memory(MemoryConnector(record))
    await stream.send_all(b"bye")
    await wait_all_tasks_blocked()
    close_now(stream)
    await wait_all_tasks_blocked()
    assert seen == [b"bye", b"end"]


async def test_server_whose_client_leaves_at_once_ends_too() -> None:
    started: list[str] = []

    async def serve(_: trio.abc.Stream) -> None:
        started.append("started")
        await trio.sleep_forever()

    stream = await open_memory(MemoryConnector(serve))
    close_now(stream)
    await wait_all_tasks_blocked()
    assert started == ["started"]
    assert not system_tasks()


async def test_crash_of_a_server_is_logged_and_kept_and_ends_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = ValueError("no such command")

    async def crash(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        raise error

    connector = MemoryConnector(crash)
    stream = await connector.connect(HERE)
    await stream.send_all(b"x")
    assert await stream.receive_some() == b""
    assert connector.errors == (error,)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("conpool.testing", logging.ERROR)
    assert record.exc_info is not None
    assert record.exc_info[1] is error


async def test_every_crash_in_a_group_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    async def crash(_: trio.abc.Stream) -> None:
        raise ExceptionGroup("", [ValueError(1), ExceptionGroup("", [KeyError(2)])])

    connector = MemoryConnector(crash)
    await connector.connect(HERE)
    await wait_all_tasks_blocked()
    assert [type(error) for error in connector.errors] == [ValueError, KeyError]
    assert len(caplog.records) == 2


@pytest.mark.parametrize("error", [trio.BrokenResourceError, trio.ClosedResourceError])
async def test_broken_stream_is_a_crash_only_while_the_client_is_there(
    error: type[Exception],
) -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        try:
            await stream.receive_some()
        finally:
            raise error

    connector = MemoryConnector(serve)
    stream = await open_memory(connector)
    await wait_all_tasks_blocked()
    close_now(stream)
    await wait_all_tasks_blocked()
    assert list(connector.errors) == []
    async with await connector.connect(HERE) as another:
        await another.send_all(b"x")
        await wait_all_tasks_blocked()
    assert [type(crash) for crash in connector.errors] == [error]


def test_no_server_outlives_its_run() -> None:
    ended: list[str] = []

    async def serve(_: trio.abc.Stream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("ended")

    connector = MemoryConnector(serve)

    async def main() -> None:
        await connector.connect(HERE)
        await wait_all_tasks_blocked()

    trio.run(main)
    assert ended == ["ended"]
    assert connector.live == 1  # nobody closed it


# ── with the proofs ─────────────────────────────────────────────────────────────


def test_cancelled_connect_leaves_nothing() -> None:
    connector = MemoryConnector(echo, delay=1)

    async def scenario(scope: trio.CancelScope) -> None:
        with scope:
            async with await connector.connect(HERE) as stream:
                await stream.send_all(b"x")
                assert await stream.receive_some() == b"x"

    async def check() -> None:
        assert connector.live == 0
        await wait_all_tasks_blocked()
        assert not system_tasks()

    assert cancel_everywhere(scenario, check=check, clock=mock_clock) > 10
    assert connector.errors == ()


def test_servers_are_scheduled_in_every_order() -> None:
    seen: set[str] = set()

    async def scenario() -> None:
        order: list[str] = []

        async def serve(_: trio.abc.Stream) -> None:
            order.append("server")
            await trio.sleep_forever()

        async with await MemoryConnector(serve).connect(HERE):
            await trio.lowlevel.checkpoint()
            order.append("client")
            await wait_all_tasks_blocked()
        seen.add(" ".join(order))

    explore_schedules(scenario)
    assert seen == {"server client", "client server"}

"""A peer that vanishes without a word, in a network of its own whose loopback is switched off.

Its connections are half open: nothing says so until the kernel has asked in vain. One script looks at bare
streams, the other at a pool.
"""

from __future__ import annotations

import errno
from typing import Any, TypeAlias

import pytest

from tests._namespace import run_in_namespace

Seen: TypeAlias = dict[str, tuple[Any, float]]
"""For each connection, its errno or close reason, and after how many seconds that was known."""

_STREAMS = """
import json, subprocess
import trio
from conpool._values.endpoint import Endpoint
from conpool._dial.tcp import TCPConnector

seen = {}

async def watch(name, connector, port, talk, vanished, *, task_status):
    stream = await connector.connect(Endpoint("127.0.0.1", port))
    task_status.started()
    await vanished.wait()
    began = trio.current_time()
    try:
        await talk(stream)
    except trio.BrokenResourceError as error:
        seen[name] = [error.__cause__.errno, trio.current_time() - began]

async def listen(stream):
    await stream.receive_some()

async def ask(stream):
    await stream.send_all(b"hello?")
    await stream.receive_some()

async def main():
    vanished = trio.Event()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    patient = TCPConnector(keepalive=1.0)
    hasty = TCPConnector(keepalive=None, user_timeout=1.0)
    with trio.move_on_after(15):
        async with trio.open_nursery() as nursery:
            await nursery.start(watch, "idle", patient, port, listen, vanished)
            await nursery.start(watch, "in flight", hasty, port, ask, vanished)
            servers = [await listener.accept(), await listener.accept()]
            subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
            vanished.set()
    print(json.dumps(seen))

trio.run(main)
"""

_POOL = """
import json, subprocess
import trio
import conpool

seen = {}

async def use(pool, endpoint, lent, vanished):
    try:
        async with pool.connection(endpoint) as conn:
            lent.set()
            await vanished.wait()
            began = trio.current_time()
            await conn.send_all(b"hello?")
            await conn.receive_some()
    except trio.BrokenResourceError as error:
        seen["lent"] = [error.__cause__.errno, trio.current_time() - began]

async def main():
    lent, vanished, closed = trio.Event(), trio.Event(), trio.Event()

    def on_closed(info, reason):
        if info.endpoint.partition == "idle":
            seen["idle"] = [reason.name, trio.current_time() - began]
            closed.set()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    idle = conpool.Endpoint("127.0.0.1", port, partition="idle")
    busy = conpool.Endpoint("127.0.0.1", port, partition="busy")
    connector = conpool.TCPConnector(keepalive=1.0, user_timeout=1.0)
    config = conpool.PoolConfig(reap_interval=1000.0)
    with trio.move_on_after(15):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, trio.SocketStream.receive_some, listeners)
            async with conpool.ConnectionPool(config, connector=connector, on_closed=on_closed) as pool:
                await pool.warm(idle, 1)
                async with trio.open_nursery() as users:
                    users.start_soon(use, pool, busy, lent, vanished)
                    await lent.wait()
                    began = trio.current_time()
                    subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
                    vanished.set()
                    await closed.wait()
            nursery.cancel_scope.cancel()
    print(json.dumps(seen))

trio.run(main)
"""


@pytest.fixture(scope="module")
def streams() -> Seen:
    seen: Seen = run_in_namespace(_STREAMS)
    return seen


@pytest.fixture(scope="module")
def pool() -> Seen:
    seen: Seen = run_in_namespace(_POOL)
    return seen


def test_f077_keepalive_ends_a_silent_connection_whose_peer_vanished(streams: Seen) -> None:
    code, seconds = streams["idle"]
    assert code == errno.ETIMEDOUT
    assert seconds < 6.0


def test_f077_the_user_timeout_ends_one_with_bytes_in_flight(streams: Seen) -> None:
    code, seconds = streams["in flight"]
    assert code == errno.ETIMEDOUT
    assert seconds < 6.0


def test_f077_an_idle_connection_is_closed_by_keepalive_and_the_watch(pool: Seen) -> None:
    reason, seconds = pool["idle"]
    assert reason == "PEER_CLOSED"
    assert seconds < 6.0


def test_f077_a_lent_one_with_bytes_in_flight_ends_by_the_user_timeout(pool: Seen) -> None:
    code, seconds = pool["lent"]
    assert code == errno.ETIMEDOUT
    assert seconds < 6.0

"""A peer that vanishes without a word, in a network of its own whose loopback is switched off."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from tests._namespace import run_in_namespace

# Two connectors, each with one of the two precautions, and a pool with both.
_SCRIPT = """
import json, subprocess
import trio
from conpool import ConnectionPool, Endpoint, PoolConfig, TCPConnector

seen = {}
vanished = trio.Event()

async def listen(stream):
    await stream.receive_some()

async def ask(stream):
    await stream.send_all(b"hello?")
    await stream.receive_some()

async def end(name, stream, talk):
    await vanished.wait()
    began = trio.current_time()
    try:
        await talk(stream)
    except trio.BrokenResourceError as error:
        seen[name] = [error.__cause__.errno, trio.current_time() - began]

async def connect(name, connector, port, talk, *, task_status):
    stream = await connector.connect(Endpoint("127.0.0.1", port))
    task_status.started()
    await end(name, stream, talk)

async def lend(name, pool, endpoint, talk, *, task_status):
    async with pool.connection(endpoint) as conn:
        task_status.started()
        await end(name, conn, talk)

async def main():
    idle_one_closed = trio.Event()
    began = trio.current_time()

    def on_closed(info, reason):
        if info.endpoint.partition == "idle":
            seen["idle in a pool"] = [reason.name, trio.current_time() - began]
            idle_one_closed.set()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    idle, busy = (Endpoint("127.0.0.1", port, partition=name) for name in ("idle", "busy"))
    config = PoolConfig(reap_interval=1000.0)
    both = TCPConnector(keepalive=1.0, user_timeout=1.0)
    patient = TCPConnector(keepalive=1.0)
    hasty = TCPConnector(keepalive=None, user_timeout=1.0)
    with trio.move_on_after(15):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, trio.SocketStream.receive_some, listeners)
            async with ConnectionPool(config, connector=both, on_closed=on_closed) as pool:
                await pool.warm(idle, 1)
                async with trio.open_nursery() as users:
                    await users.start(connect, "silent", patient, port, listen)
                    await users.start(connect, "in flight", hasty, port, ask)
                    await users.start(lend, "lent by a pool", pool, busy, ask)
                    subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
                    began = trio.current_time()
                    vanished.set()
                    await idle_one_closed.wait()
            nursery.cancel_scope.cancel()
    print(json.dumps(seen))

trio.run(main)
"""


@pytest.fixture(scope="module")
def seen() -> dict[str, tuple[Any, float]]:
    found: dict[str, tuple[Any, float]] = run_in_namespace(_SCRIPT)
    return found


def test_f077_keepalive_ends_a_silent_connection_whose_peer_vanished(
    seen: dict[str, tuple[Any, float]],
) -> None:
    code, seconds = seen["silent"]
    assert code == errno.ETIMEDOUT
    assert seconds < 6.0


def test_f077_the_user_timeout_ends_one_with_bytes_in_flight(
    seen: dict[str, tuple[Any, float]],
) -> None:
    code, seconds = seen["in flight"]
    assert code == errno.ETIMEDOUT
    assert seconds < 6.0


def test_f077_an_idle_connection_is_closed_by_keepalive_and_the_watch(
    seen: dict[str, tuple[Any, float]],
) -> None:
    reason, seconds = seen["idle in a pool"]
    assert reason == "PEER_CLOSED"
    assert seconds < 6.0


def test_f077_a_lent_one_with_bytes_in_flight_ends_by_the_user_timeout(
    seen: dict[str, tuple[Any, float]],
) -> None:
    code, seconds = seen["lent by a pool"]
    assert code == errno.ETIMEDOUT
    assert seconds < 6.0

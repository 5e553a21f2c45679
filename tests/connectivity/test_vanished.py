"""A peer that vanishes without a word, as a pool sees it: in a network whose loopback is switched off."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from tests._namespace import run_in_namespace

_SCRIPT = """
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
def seen() -> dict[str, tuple[Any, float]]:
    found: dict[str, tuple[Any, float]] = run_in_namespace(_SCRIPT)
    return found


def test_f077_an_idle_connection_is_closed_by_keepalive_and_the_watch(
    seen: dict[str, tuple[Any, float]],
) -> None:
    reason, seconds = seen["idle"]
    assert reason == "PEER_CLOSED"
    assert seconds < 6.0


def test_f077_a_lent_one_with_bytes_in_flight_ends_by_the_user_timeout(
    seen: dict[str, tuple[Any, float]],
) -> None:
    code, seconds = seen["lent"]
    assert code == errno.ETIMEDOUT
    assert seconds < 6.0

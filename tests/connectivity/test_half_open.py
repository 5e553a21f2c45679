"""A peer that vanishes without a word, in a network of its own whose loopback is switched off."""

from __future__ import annotations

import errno

import pytest

from tests._namespace import run_in_namespace

_SCRIPT = """
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
            peers = [await listener.accept(), await listener.accept()]
            subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
            vanished.set()
    print(json.dumps(seen))

trio.run(main)
"""


@pytest.fixture(scope="module")
def seen() -> dict[str, tuple[int, float]]:
    found: dict[str, tuple[int, float]] = run_in_namespace(_SCRIPT)
    return found


def test_f077_keepalive_ends_a_silent_connection_whose_peer_vanished(
    seen: dict[str, tuple[int, float]],
) -> None:
    code, seconds = seen["idle"]
    assert code == errno.ETIMEDOUT
    assert seconds < 6.0


def test_f077_the_user_timeout_ends_one_with_bytes_in_flight(
    seen: dict[str, tuple[int, float]],
) -> None:
    code, seconds = seen["in flight"]
    assert code == errno.ETIMEDOUT
    assert seconds < 6.0

"""Faults that only the kernel can cause: no descriptors left, no ports, peers that vanish."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from conpool import CloseReason, Connection, ConnectTimeout, Endpoint, PoolConfig
from tests._namespace import run_in_namespace
from tests._net import LOOPBACK, swallowing
from tests.support.clean import clean
from tests.support.kernel import (
    TCPState,
    ask_kernel,
    client_sockets,
    need_kernel_table,
    read_tables,
)
from tests.support.loopback_servers import exchange

from .sites import Site, TCPSite, socket_of

_TCP_REPAIR = 19  # linux/tcp.h


@pytest.fixture(autouse=True)
def find_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts can import what this file imports, wherever they run."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


# ── the witness ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_both_of_the_kernels_tables_tell_of_each_socket(host: str) -> None:
    need_kernel_table()
    (listener,) = await trio.open_tcp_listeners(0, host=host)
    port = listener.socket.getsockname()[1]
    async with listener:
        assert not client_sockets(port)
        clients = [await trio.open_tcp_stream(host, port) for _ in range(3)]
        servers = [await listener.accept() for _ in range(3)]
        servers[0].socket.close()
        await trio.lowlevel.wait_readable(clients[0].socket)
        seen = client_sockets(port)
        assert seen == {TCPState.ESTABLISHED: 2, TCPState.CLOSE_WAIT: 1}
        by_netlink, from_proc = set(ask_kernel(port)), set(read_tables(port))
        assert {row for row in by_netlink if row[0]} == {row for row in from_proc if row[0]}
        for stream in (*clients, *servers):
            stream.socket.close()
        assert not client_sockets(port)


# ── no descriptors left ─────────────────────────────────────────────────────────

_FEW_FILES = """
import json, os, resource, sys
import trio
from conpool import Endpoint, LocalResourceError, PoolConfig
from tests.support.clean import clean
from tests.support.loopback_servers import exchange, serving

HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

def allow(files):
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, HARD))

async def main():
    seen = {}
    async with serving() as server, clean(server.endpoint) as case:
        other = Endpoint("127.0.0.1", server.port, partition="other")
        async with case.pool.connection(other) as conn:
            await exchange(conn)
        # The lowest free number is what the next file gets, and one more than may be had.
        free = os.dup(0)
        os.close(free)
        allow(free)
        try:
            await case.pool.acquire(server.endpoint)
        except LocalResourceError as error:
            seen["errno"], seen["phase"] = error.errno, error.phase
        async with case.pool.connection(other) as conn:
            seen["what is open still serves"] = conn.reused
            await exchange(conn)
        allow(HARD)
        async with case.pool.connection(server.endpoint) as conn:
            await exchange(conn)
        seen["reasons"] = [reason.name for reason in case.log.reasons]
    print(json.dumps(seen))

trio.run(main)
"""


def run_script(script: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, timeout=40
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_f034_g27_no_descriptor_left_is_told_apart_and_what_is_open_still_serves() -> None:
    assert run_script(_FEW_FILES) == {
        "errno": errno.EMFILE,
        "phase": "tcp",
        "what is open still serves": True,
        "reasons": [],
    }


# ── no ports left ───────────────────────────────────────────────────────────────

_FEW_PORTS = """
import json
import logging
import trio
from conpool import AcquireTimeout, Endpoint, LocalResourceError, PoolConfig
from tests.support.clean import clean
from tests.support.loopback_servers import exchange

logging.disable()  # a dial that nobody waits for fails, too
with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as file:
    file.write("40000 40009")

async def main():
    (listener,) = await trio.open_tcp_listeners(50000, host="127.0.0.1")
    endpoint = Endpoint("127.0.0.1", 50000)
    seen = {"held": 0, "refused": [], "timed out": [], "served later": 0}
    release = trio.Event()

    async def hold():
        try:
            async with case.pool.connection(endpoint):
                seen["held"] += 1
                await release.wait()
        except LocalResourceError as error:
            seen["refused"].append(error.errno)
        except AcquireTimeout as error:
            seen["timed out"].append(error.last_connect_error.errno)

    async def serve_later():
        async with case.pool.connection(endpoint, timeout=10):
            seen["served later"] += 1

    config = PoolConfig(max_connections_per_endpoint=30, acquire_timeout=0.5)
    async with clean(endpoint, config) as case, trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(hold)
        while len(seen["refused"]) + len(seen["timed out"]) < 20:
            await trio.sleep(0.01)
        seen["dials"] = case.log.dialled
        for _ in range(5):
            nursery.start_soon(serve_later)
        release.set()
    listener.socket.close()
    print(json.dumps(seen))

trio.run(main)
"""


def test_f036_g31_no_port_left_is_this_machines_fault_and_no_reason_to_hurry() -> None:
    seen = run_in_namespace(_FEW_PORTS)
    assert seen["held"] == 10
    assert not seen["refused"], "those who hold connections may give them back in time"
    assert set(seen["timed out"]) == {errno.EADDRNOTAVAIL}
    assert seen["dials"] <= 30 + 15
    assert seen["served later"] == 5


_NO_ROUTE = """
import json
import trio
from conpool import ConnectError, Endpoint
from tests.support.clean import clean
from tests.support.loopback_servers import serving

async def main():
    async with serving() as server, clean(server.endpoint) as case:
        try:
            await case.pool.acquire(Endpoint("192.0.2.1", 80))
        except ConnectError as error:
            print(json.dumps([type(error).__name__, error.errno, error.phase]))

trio.run(main)
"""


def test_f037_a_network_without_a_way_there_says_so() -> None:
    assert run_in_namespace(_NO_ROUTE) == ["ConnectError", errno.ENETUNREACH, "tcp"]


# ── peers that vanish ───────────────────────────────────────────────────────────


@pytest.fixture
def can_vanish() -> None:
    """Skip the test if no server can vanish on this machine."""
    if sys.platform != "linux":
        pytest.skip("TCP_REPAIR is Linux's")
    with socket.socket() as sock:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
        except OSError as error:
            pytest.skip(f"TCP_REPAIR is not allowed here: {error}")


def vanish(site: Site, stream: trio.abc.Stream) -> None:
    """Close a server's socket without telling the client: no FIN, no RST."""
    sock = socket_of(stream).socket
    sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
    sock.close()


@pytest.mark.usefixtures("can_vanish")
async def test_f077_a_peer_that_vanished_looks_alive_and_the_block_finds_out(
    tcp_site: TCPSite,
) -> None:
    async with clean(tcp_site.endpoint) as case:
        vanish(tcp_site, await tcp_site.lend(case))
        with pytest.raises(trio.BrokenResourceError):
            async with case.pool.connection(tcp_site.endpoint) as conn:
                assert conn.reused, "nothing has said that it is gone"
                await conn.send_all(b"hello?")
                await conn.receive_some()
        assert case.log.reasons == [CloseReason.ERROR]


@pytest.mark.usefixtures("can_vanish")
async def test_f077_a_peer_that_vanished_is_found_out_by_the_health_check(
    tcp_site: TCPSite,
) -> None:
    async def ping(conn: Connection[None]) -> bool:
        await exchange(conn)
        return True

    async with clean(None, health_check=ping) as case:
        vanish(tcp_site, await tcp_site.lend(case))
        async with case.pool.connection(tcp_site.endpoint) as conn:
            assert conn.uses == 1
        assert case.log.reasons == [CloseReason.UNHEALTHY]


_NETWORK_DOWN = """
import json, subprocess
import trio
from conpool import PoolConfig, TCPConnector
from tests.support.clean import clean
from tests.support.loopback_servers import exchange, serving

seen = {}

async def main():
    connector = TCPConnector(keepalive=1.0, user_timeout=1.0)
    async with serving() as server, clean(None, connector=connector) as case:
        await case.pool.warm(server.endpoint, 2)
        async with case.pool.connection(server.endpoint) as conn:
            await exchange(conn)
        subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
        began = trio.current_time()
        try:
            async with case.pool.connection(server.endpoint) as conn:
                seen["reused"] = conn.uses
                await conn.send_all(b"hello?")
                await conn.receive_some()
        except trio.BrokenResourceError as error:
            seen["errno"] = error.__cause__.errno
        await case.log.wait_until(lambda: len(case.log.reasons) == 2)
        seen["seconds"] = trio.current_time() - began
        seen["reasons"] = sorted(reason.name for reason in case.log.reasons)
    print(json.dumps(seen))

trio.run(main)
"""


def test_f077_when_the_network_goes_the_block_and_the_idle_ones_end_in_bounded_time() -> None:
    seen = run_in_namespace(_NETWORK_DOWN)
    assert seen["errno"] == errno.ETIMEDOUT
    assert seen["reasons"] == ["ERROR", "PEER_CLOSED"]
    assert seen["seconds"] < 8.0


# ── peers that do not answer ────────────────────────────────────────────────────


async def test_f029_g1_sockets_that_wait_for_an_answer_count_too() -> None:
    need_kernel_table()
    with swallowing() as port:
        endpoint = Endpoint(LOOPBACK, port)
        config = PoolConfig(max_connections_per_endpoint=3, connect_timeout=0.2)
        async with clean(None, config) as case:
            fillers = client_sockets(port)
            most = 0

            async def dial() -> None:
                with pytest.raises(ConnectTimeout):
                    await case.pool.acquire(endpoint, timeout=30)

            async def count() -> None:
                nonlocal most
                while len(case.log.connect_errors) < 6:
                    most = max(most, (client_sockets(port) - fillers)[TCPState.SYN_SENT])
                    await trio.sleep(0.02)

            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(dial)
                nursery.start_soon(count)
        assert most == 3
        assert client_sockets(port) == fillers

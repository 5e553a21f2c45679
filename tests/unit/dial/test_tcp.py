from __future__ import annotations

import errno
import math
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from conpool._dial.tcp import TCPConnector
from conpool._errors.connect import ConnectError, LocalResourceError, ProxyError, ResolveError
from conpool._values.config_error import ConfigError
from conpool._values.endpoint import Endpoint, UnixEndpoint
from conpool._values.proxy import HTTPProxy, SOCKS5Proxy
from conpool.testing import cancel_everywhere
from tests._net import (
    LOOPBACK,
    FakeNetwork,
    FromPort,
    Hook,
    Hosts,
    connected,
    fails,
    hooked,
    listening,
    on_network,
    progress_noted,
    refusing,
    swallowing,
)

REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 is Linux's own")


# ── real sockets ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_it_connects(host: str) -> None:
    bound = "127.0.0.1" if host == "localhost" else host
    async with listening(bound) as (listener, port):
        with progress_noted() as progress:
            async with connected(TCPConnector(), Endpoint(host, port)) as stream:
                assert stream.socket.getpeername()[:2] == (bound, port)
                async with await listener.accept() as server:
                    await stream.send_all(b"hello")
                    assert await server.receive_some() == b"hello"
        assert progress.phase == "open"


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no UNIX sockets")
async def test_a_unix_socket_is_connected_too(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        connector, endpoint = TCPConnector(), UnixEndpoint(tmp_path / "socket")
        stream = await connector.connect(endpoint)
        await stream.aclose()
        assert await connector.addresses(endpoint) is None


@linux_only
async def test_its_options_are_set_on_the_socket() -> None:
    async with listening() as (_, port):
        connector = TCPConnector(keepalive=30.0, user_timeout=9.0)
        async with connected(connector, Endpoint(LOOPBACK, port)) as stream:
            sock = stream.socket
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 9000
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@linux_only
async def test_f025_of_a_dead_and_a_live_address_the_live_one_is_used() -> None:
    hosts = Hosts(db=["127.0.0.2", "127.0.0.1"])
    connector = TCPConnector(resolver=hosts, happy_eyeballs_delay=math.inf)
    async with listening() as (_, port):
        endpoint = Endpoint("db", port)
        with progress_noted() as progress:
            async with connected(connector, endpoint) as stream:
                assert stream.socket.getpeername() == ("127.0.0.1", port)
        assert [error.errno for error in progress.attempts] == [errno.ECONNREFUSED]
        with progress_noted() as progress:
            async with connected(connector, endpoint):
                pass
        assert progress.attempts == []  # the last winner goes first


@linux_only
async def test_f025_f029_a_silent_first_address_costs_the_delay() -> None:
    async with listening() as (_, port):
        with swallowing("127.0.0.2", port):
            hosts = Hosts(db=["127.0.0.2", "127.0.0.1"])
            connector = TCPConnector(resolver=hosts, happy_eyeballs_delay=0.05)
            started = trio.current_time()
            async with connected(connector, Endpoint("db", port)) as stream:
                assert stream.socket.getpeername() == ("127.0.0.1", port)
                took = trio.current_time() - started
                assert 0.05 <= took < 1.0, "after a second the system repeats the first SYN"


async def test_f027_refused_is_said_at_once() -> None:
    with refusing() as port, progress_noted() as progress:
        with trio.fail_after(5):
            error = await fails(TCPConnector(), Endpoint(LOOPBACK, port))
    assert (error.phase, error.errno) == ("tcp", errno.ECONNREFUSED)
    assert str(error).endswith("Connection refused (127.0.0.1) [ECONNREFUSED]")
    assert list(error.attempts) == progress.attempts
    assert isinstance(error.__cause__, ExceptionGroup)


@linux_only
async def test_f026_when_all_refuse_there_is_an_error_for_each() -> None:
    hosts = Hosts(db=["127.0.0.2", "127.0.0.3", "127.0.0.4"])
    with refusing("0.0.0.0") as port:
        error = await fails(TCPConnector(resolver=hosts), Endpoint("db", port))
    assert (error.phase, error.errno) == ("tcp", errno.ECONNREFUSED)
    assert [attempt.errno for attempt in error.attempts] == [errno.ECONNREFUSED] * 3
    assert "127.0.0.2" in str(error.attempts[0])
    assert "tried 3 addresses" in str(error)


@linux_only
async def test_f029_dropped_syns_end_with_the_callers_deadline_and_leave_no_socket() -> None:
    with swallowing() as port, progress_noted() as progress:
        with trio.move_on_after(0.05) as scope:
            await TCPConnector().connect(Endpoint(LOOPBACK, port))
        assert scope.cancelled_caught
        assert progress.phase == "tcp"


@linux_only
async def test_f033_g8_a_socket_that_met_itself_is_refused() -> None:
    with refusing() as port:
        pass
    with on_network(FromPort(port)):
        error = await fails(TCPConnector(), Endpoint(LOOPBACK, port))
    assert (error.phase, error.errno) == ("tcp", errno.ECONNREFUSED)
    assert "self-connect" in str(error)


@contextmanager
def no_more_files() -> Iterator[None]:
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as highest:
        limit = highest.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@linux_only
async def test_f034_no_file_left_is_this_machines_fault() -> None:
    async with listening() as (_, port):
        with no_more_files():
            error = await fails(TCPConnector(), Endpoint(LOOPBACK, port), LocalResourceError)
    assert error.errno == errno.EMFILE


@linux_only
async def test_f038_a_local_address_that_is_not_here_is_named() -> None:
    async with listening() as (_, port):
        endpoint = Endpoint(LOOPBACK, port, local_address="192.0.2.77")
        error = await fails(TCPConnector(), endpoint)
    assert (error.phase, error.errno) == ("tcp", errno.EADDRNOTAVAIL)
    assert "cannot dial from local_address 192.0.2.77" in str(error)


@pytest.mark.parametrize(
    ("local", "said"), [("eth0.example", "that is no IP address"), ("fe80::1%nosuch", "")]
)
async def test_f038_a_local_address_must_be_an_ip_address(local: str, said: str) -> None:
    endpoint = Endpoint(LOOPBACK, 1, local_address=local)
    error = await fails(TCPConnector(), endpoint)
    assert f"cannot dial from local_address {local}" in str(error)
    assert said in str(error)
    with pytest.raises(ConnectError):
        await TCPConnector().addresses(endpoint)


@linux_only
async def test_it_dials_from_the_local_address() -> None:
    async with listening() as (_, port):
        endpoint = Endpoint(LOOPBACK, port, local_address="127.0.0.9")
        async with connected(TCPConnector(), endpoint) as stream:
            assert stream.socket.getsockname()[0] == "127.0.0.9"


async def test_a_local_address_chooses_the_family() -> None:
    async with listening() as (_, port):
        hosts = Hosts(db=["::1", "127.0.0.1"])
        connector = TCPConnector(resolver=hosts)
        endpoint = Endpoint("db", port, local_address=LOOPBACK)
        async with connected(connector, endpoint) as stream:
            assert stream.socket.getpeername() == (LOOPBACK, port)
        assert await connector.addresses(endpoint) == frozenset({LOOPBACK})
        await fails(connector, Endpoint("::1", port, local_address=LOOPBACK), ResolveError)


async def test_f009_an_unknown_zone_cannot_be_resolved() -> None:
    error = await fails(TCPConnector(), Endpoint("fe80::1%nosuch", 1), ResolveError)
    assert error.phase == "resolve"


@linux_only
def test_f031_g10_cancelled_anywhere_it_leaves_no_socket_open() -> None:
    async def scenario(scope: trio.CancelScope) -> None:
        hosts = Hosts(db=["127.0.0.2", "127.0.0.1"])
        connector = TCPConnector(resolver=hosts)
        async with listening() as (_, port):
            with scope:
                stream = await connector.connect(Endpoint("db", port, local_address="127.0.0.9"))
                await stream.aclose()

    assert cancel_everywhere(scenario) >= 4


async def test_trios_own_hook_resolves_and_may_choose_the_port() -> None:
    async with listening() as (_, port):
        with hooked(Hook((socket.AF_INET, (LOOPBACK, port)))) as hook:
            async with connected(TCPConnector(), Endpoint("shop.example", 443)) as stream:
                assert stream.socket.getpeername() == (LOOPBACK, port)
        assert hook.asked == [(b"shop.example", 443)]


# ── a network of our own ────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_f034_f035_no_socket_to_be_had(code: int) -> None:
    network = FakeNetwork()
    network.exhausted = OSError(code, "none left")
    with on_network(network):
        error = await fails(TCPConnector(), Endpoint("192.0.2.1", 1), LocalResourceError)
    assert error.errno == code


async def test_f036_no_port_left() -> None:
    network = FakeNetwork(**{"192.0.2.1": (0.0, OSError(errno.EADDRNOTAVAIL, "no ports"))})
    with on_network(network):
        error = await fails(TCPConnector(), Endpoint("192.0.2.1", 1), LocalResourceError)
    assert error.errno == errno.EADDRNOTAVAIL
    assert network.open == 0


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.ENETUNREACH, errno.EHOSTUNREACH])
async def test_f037_no_way_there(code: int) -> None:
    network = FakeNetwork(**{"192.0.2.1": (0.0, OSError(code, "no way"))})
    with on_network(network):
        error = await fails(TCPConnector(), Endpoint("192.0.2.1", 1))
    assert (error.phase, error.errno) == ("tcp", code)
    assert network.open == 0


async def test_f026_the_most_telling_errno_is_on_top() -> None:
    network = FakeNetwork(
        **{
            "2001:db8::1": (0.0, OSError(errno.ENETUNREACH, "no route")),
            "192.0.2.1": (0.0, REFUSED),
        }
    )
    connector = TCPConnector(resolver=Hosts(db=["2001:db8::1", "192.0.2.1"]))
    with on_network(network):
        error = await fails(connector, Endpoint("db", 1))
    assert error.errno == errno.ECONNREFUSED
    assert [attempt.errno for attempt in error.attempts] == [errno.ENETUNREACH, errno.ECONNREFUSED]


async def test_f032_g8_reset_before_anyone_could_look_is_an_error() -> None:
    network = FakeNetwork(**{"192.0.2.1": (0.0, None)})
    network.no_peer = OSError(errno.ENOTCONN, "not connected")
    with on_network(network):
        error = await fails(TCPConnector(), Endpoint("192.0.2.1", 1))
    assert error.errno == errno.ECONNRESET
    assert network.open == 0


async def test_an_error_without_a_number_is_passed_on() -> None:
    network = FakeNetwork(**{"192.0.2.1": (0.0, OSError("something else"))})
    with on_network(network):
        error = await fails(TCPConnector(), Endpoint("192.0.2.1", 1))
    assert error.errno is None
    assert "something else" in str(error)


async def test_f025_families_take_turns_and_losers_are_closed(autojump_clock: MockClock) -> None:
    network = FakeNetwork(
        **{
            "2001:db8::1": (math.inf, None),
            "2001:db8::2": (math.inf, None),
            "192.0.2.1": (0.1, None),
        }
    )
    connector = TCPConnector(resolver=Hosts(db=["2001:db8::1", "2001:db8::2", "192.0.2.1"]))
    with on_network(network):
        await connector.connect(Endpoint("db", 1))
        assert trio.current_time() == pytest.approx(0.35)
        assert network.open == 1
        await connector.connect(Endpoint("db", 1))
        assert trio.current_time() == pytest.approx(0.45)
    assert network.dialled == ["2001:db8::1", "192.0.2.1", "192.0.2.1"]


async def test_g16_a_host_that_hangs_delays_no_other(autojump_clock: MockClock) -> None:
    network = FakeNetwork(**{"192.0.2.1": (math.inf, None), "192.0.2.2": (0.0, None)})
    connector = TCPConnector()
    with on_network(network):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connector.connect, Endpoint("192.0.2.1", 1))
            await wait_all_tasks_blocked()
            await connector.connect(Endpoint("192.0.2.2", 1))
            assert trio.current_time() == 0.0
            nursery.cancel_scope.cancel()
    assert network.open == 1


# ── proxies ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", [HTTPProxy, SOCKS5Proxy])
async def test_f120_a_proxy_that_refuses(kind: type[HTTPProxy | SOCKS5Proxy]) -> None:
    with refusing() as port, progress_noted() as progress:
        endpoint = Endpoint("db.example", 1, proxy=kind(LOOPBACK, port))
        error = await fails(TCPConnector(), endpoint, ProxyError)
    assert (error.phase, error.errno) == ("proxy", errno.ECONNREFUSED)
    assert progress.phase == "proxy"
    assert len(error.attempts) == 1


async def test_f120_a_proxy_whose_name_is_unknown() -> None:
    hosts = Hosts(proxy=socket.gaierror(socket.EAI_NONAME, "no such name"))
    endpoint = Endpoint("db.example", 1, proxy=HTTPProxy("proxy", 3128))
    error = await fails(TCPConnector(resolver=hosts), endpoint, ProxyError)
    assert error.phase == "proxy"
    assert "no such name" in str(error)


async def test_no_file_left_is_no_fault_of_the_proxys() -> None:
    network = FakeNetwork()
    network.exhausted = OSError(errno.EMFILE, "no files")
    endpoint = Endpoint("db.example", 1, proxy=HTTPProxy("192.0.2.9", 3128))
    with on_network(network):
        await fails(TCPConnector(), endpoint, LocalResourceError)


# ── values ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [-1.0, math.nan, "5", True, None])
def test_f013_times_that_cannot_be(value: Any) -> None:
    with pytest.raises(ConfigError, match="dns_ttl"):
        TCPConnector(dns_ttl=value)
    with pytest.raises(ConfigError, match="happy_eyeballs_delay"):
        TCPConnector(happy_eyeballs_delay=value)
    if value is not None:
        with pytest.raises(ConfigError, match="keepalive"):
            TCPConnector(keepalive=value)
        with pytest.raises(ConfigError, match="user_timeout"):
            TCPConnector(user_timeout=value)


def test_times_of_zero_and_of_no_end() -> None:
    TCPConnector(dns_ttl=0.0, happy_eyeballs_delay=0.0)
    TCPConnector(dns_ttl=math.inf, happy_eyeballs_delay=math.inf, keepalive=math.inf)
    with pytest.raises(ConfigError, match="keepalive"):
        TCPConnector(keepalive=0.0)


def test_a_resolver_must_be_a_function() -> None:
    with pytest.raises(ConfigError, match="resolver must be an async function"):
        TCPConnector(resolver="8.8.8.8")  # type: ignore[arg-type]


def test_its_repr_shows_its_times() -> None:
    assert repr(TCPConnector()) == (
        "<TCPConnector dns_ttl=300.0 happy_eyeballs_delay=0.25 keepalive=60.0 user_timeout=None>"
    )

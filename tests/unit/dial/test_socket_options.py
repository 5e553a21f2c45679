from __future__ import annotations

import math
import socket
import sys
from collections.abc import Iterator

import pytest
import trio

from conpool._dial import socket_options as options_module
from conpool._dial.socket_options import PROBES, apply_options, bind_late, socket_options

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="reads the options by Linux's names"
)


@pytest.fixture
def sock() -> Iterator[trio.socket.SocketType]:
    with trio.socket.from_stdlib_socket(socket.socket()) as opened:
        yield opened


@linux_only
def test_keepalive_asks_after_its_time_and_gives_the_peer_as_long_again(
    sock: trio.socket.SocketType,
) -> None:
    apply_options(sock, socket_options(60.0, None))
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 60 / PROBES
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == PROBES
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


@linux_only
def test_f077_the_user_timeout_is_in_milliseconds(sock: trio.socket.SocketType) -> None:
    apply_options(sock, socket_options(None, 1.5))
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1500
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


@linux_only
@pytest.mark.parametrize("seconds", [0.001, 0.3, 40_000.0, 1e300])
def test_any_time_is_rounded_to_one_that_the_system_takes(
    seconds: float, sock: trio.socket.SocketType
) -> None:
    for level, name, value in socket_options(seconds, seconds):
        sock.setsockopt(level, name, value)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) >= min(seconds, 32_767)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) > 0


@linux_only
@pytest.mark.parametrize(("seconds", "interval", "count"), [(1.0, 1, 1), (2.5, 1, 3), (30.0, 8, 4)])
def test_short_keepalives_ask_less_often(
    seconds: float, interval: int, count: int, sock: trio.socket.SocketType
) -> None:
    apply_options(sock, socket_options(seconds, None))
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == interval
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == count


def test_no_time_sets_nothing() -> None:
    assert socket_options(None, None) == ()
    assert socket_options(math.inf, math.inf) == ()


def test_other_systems_count_the_user_timeout_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options_module, "_USER_TIMEOUT_MS", None)
    monkeypatch.setattr(options_module, "_USER_TIMEOUT_S", 0x80)
    assert socket_options(None, 1.5) == ((socket.IPPROTO_TCP, 0x80, 2),)


def test_a_system_without_the_options_is_left_to_its_own_pace(
    monkeypatch: pytest.MonkeyPatch, sock: trio.socket.SocketType
) -> None:
    for name in (
        "_IDLE",
        "_INTERVAL",
        "_COUNT",
        "_USER_TIMEOUT_MS",
        "_USER_TIMEOUT_S",
        "_BIND_LATE",
    ):
        monkeypatch.setattr(options_module, name, None)
    assert socket_options(60.0, 60.0) == ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),)
    bind_late(sock)


def test_an_option_that_the_system_refuses_fails_nothing(sock: trio.socket.SocketType) -> None:
    apply_options(
        sock, ((socket.IPPROTO_TCP, 0x7FFF, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))
    )
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


@linux_only
def test_binding_late_leaves_the_port_to_connect(sock: trio.socket.SocketType) -> None:
    bind_late(sock)
    with socket.socket(fileno=sock.fileno()) as plain:
        plain.bind(("127.0.0.1", 0))
        assert plain.getsockname() == ("127.0.0.1", 0)
        plain.detach()

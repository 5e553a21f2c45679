"""One dial: transport, TLS, time-out; a failed dial says why, and leaves nothing open."""

from __future__ import annotations

import errno
import math
import os
import pickle
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from conpool import (
    TLS,
    ConnectionPool,
    Connector,
    Endpoint,
    HTTPProxy,
    NativeDriver,
    TCPConnector,
)
from conpool._connection.session import SessionRules
from conpool._dial.dial import open_link
from conpool._dial.progress import note_attempt, note_phase
from conpool._errors.connect import (
    ConnectError,
    ConnectRefused,
    ConnectTimeout,
    LocalResourceError,
    ProxyTimeout,
    ResolveError,
    ResolveTimeout,
    TLSError,
    TLSTimeout,
)
from conpool._values.endpoint import AnyEndpoint
from conpool._values.states import DialPhase
from tests._net import FakeNetwork, on_network
from tests._proxies import Connecting, proxy_at_work
from tests.support.loopback_servers import tcp_pair, tls_server
from tests.support.odd import HalfBuilt, odd_exceptions, repr_of
from tests.support.pools import echo

PLAIN = Endpoint("db.example", 5432)


class Fake(Connector):
    """Connects as the test tells it to."""

    def __init__(self, connect: Callable[[], Awaitable[trio.abc.Stream]]) -> None:
        self._connect = connect

    async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
        return await self._connect()


def hanging(phase: DialPhase | None = None) -> Fake:
    async def connect() -> trio.abc.Stream:
        if phase is not None:
            note_phase(phase)
        await trio.sleep_forever()

    return Fake(connect)


def raising(error: BaseException, phase: DialPhase = "tcp") -> Fake:
    async def connect() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        note_phase(phase)
        raise error

    return Fake(connect)


def returning(stream: trio.abc.Stream) -> Fake:
    async def connect() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return stream

    return Fake(connect)


async def fails(connector: Connector, endpoint: Endpoint = PLAIN) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        await open_link(connector, endpoint, 10.0)
    assert caught.value.endpoint == endpoint
    return caught.value


async def test_a_dial_makes_a_link_of_what_the_connector_returns() -> None:
    client, server = memory_stream_pair()
    link = await open_link(returning(client), PLAIN, math.inf)
    assert link.stream is client
    assert link.ssl_object is None
    await link.exchange.send_all(b"hello")
    assert await server.receive_some() == b"hello"


# ── time-outs ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("phase", "kind", "expected"),
    [
        (None, ConnectTimeout, "tcp"),
        ("resolve", ResolveTimeout, "resolve"),
        ("tcp", ConnectTimeout, "tcp"),
        ("proxy", ProxyTimeout, "proxy"),
    ],
)
async def test_f029_a_time_out_tells_in_which_phase_it_was(
    autojump_clock: MockClock,
    phase: DialPhase | None,
    kind: type[ConnectError],
    expected: DialPhase,
) -> None:
    began = trio.current_time()
    error = await fails(hanging(phase))
    assert trio.current_time() - began == 10.0
    assert type(error) is kind
    assert error.phase == expected
    assert error.errno == errno.ETIMEDOUT
    assert "connect_timeout of 10s" in str(error)


async def test_a_time_out_has_the_errors_of_the_addresses_tried_before(
    autojump_clock: MockClock,
) -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")

    async def connect() -> trio.abc.Stream:
        note_phase("tcp")
        note_attempt(refused)
        await trio.sleep_forever()

    assert (await fails(Fake(connect))).attempts == (refused,)


async def test_f054_silence_in_the_handshake_is_a_tls_time_out_and_the_socket_is_closed(
    client_ssl: ssl.SSLContext,
) -> None:
    client, server = await tcp_pair()
    endpoint = Endpoint("localhost", 1, tls=TLS(client_ssl))
    async with server:
        with pytest.raises(TLSTimeout) as caught:
            await open_link(returning(client), endpoint, 0.02)
        assert caught.value.phase == "tls"
        assert client.socket.fileno() == -1


async def test_dials_at_the_same_time_do_not_mistake_their_phases(
    autojump_clock: MockClock,
) -> None:
    errors: dict[str, ConnectError] = {}

    async def dial(phase: DialPhase) -> None:
        errors[phase] = await fails(hanging(phase))

    phases: tuple[DialPhase, ...] = ("resolve", "tcp", "proxy")
    async with trio.open_nursery() as nursery:
        for phase in phases:
            nursery.start_soon(dial, phase)
    assert [errors[phase].phase for phase in phases] == list(phases)


# ── failures ────────────────────────────────────────────────────────────────────


async def test_f027_what_the_system_says_is_in_the_error() -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    error = await fails(raising(refused))
    assert type(error) is ConnectRefused
    assert (error.phase, error.errno) == ("tcp", errno.ECONNREFUSED)
    assert error.__cause__ is refused


async def test_f022_a_name_that_does_not_exist_is_a_resolve_error() -> None:
    error = await fails(raising(socket.gaierror(socket.EAI_NONAME, "unknown"), "resolve"))
    assert type(error) is ResolveError
    assert error.errno == socket.EAI_NONAME


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_f034_f035_what_this_machine_lacks_is_not_the_peers_fault(code: int) -> None:
    error = await fails(raising(OSError(code, "none left")))
    assert type(error) is LocalResourceError
    assert error.errno == code


async def test_a_connect_error_of_the_connectors_own_comes_out_as_it_is() -> None:
    error = ConnectError("no", endpoint=PLAIN, phase="tcp")
    assert await fails(raising(error)) is error


async def test_a_connector_may_raise_anything() -> None:
    bug = ZeroDivisionError("a bug in the connector")
    error = await fails(raising(bug))
    assert error.__cause__ is bug


async def test_what_is_no_mere_error_comes_out_as_it_is() -> None:
    with pytest.raises(SystemExit):
        await open_link(raising(SystemExit(3)), PLAIN, 10.0)


async def test_f053_a_server_without_tls_is_a_tls_error_and_the_socket_is_closed(
    client_ssl: ssl.SSLContext,
) -> None:
    client, server = await tcp_pair()
    await server.send_all(b"220 welcome\r\n")
    async with server:
        error = await fails(returning(client), Endpoint("localhost", 1, tls=TLS(client_ssl)))
        assert type(error) is TLSError
        assert "WRONG_VERSION_NUMBER" in str(error)
        assert client.socket.fileno() == -1


class Awkward(trio.abc.Stream):
    """A stream that cannot be closed without an await."""

    def __init__(self) -> None:
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise trio.BrokenResourceError

    async def wait_send_all_might_not_block(self) -> None:
        raise trio.BrokenResourceError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise trio.BrokenResourceError

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


async def test_a_stream_that_only_an_await_can_close_is_closed_when_its_handshake_fails(
    client_ssl: ssl.SSLContext,
) -> None:
    stream = Awkward()
    error = await fails(returning(stream), Endpoint("localhost", 1, tls=TLS(client_ssl)))
    assert error.phase == "tls"
    assert stream.closed


async def test_a_dial_cancelled_in_its_handshake_leaves_nothing_open(
    client_ssl: ssl.SSLContext,
) -> None:
    client, server = await tcp_pair()
    endpoint = Endpoint("localhost", 1, tls=TLS(client_ssl))
    async with server, trio.open_nursery() as nursery:
        nursery.start_soon(open_link, returning(client), endpoint, 10.0)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert client.socket.fileno() == -1


async def test_a_dial_with_tls_is_open_for_business(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    async with tls_server(server_ssl, TLS(client_ssl)) as server:
        stream = await trio.open_tcp_stream(server.endpoint.host, server.endpoint.port)
        link = await open_link(returning(stream), server.endpoint, 10.0)
        accepted = await server.accept()
        await accepted.send_all(b"hello")
        assert await link.exchange.receive_some() == b"hello"
        assert link.ssl_object is not None
        assert link.has_goodbye
        link.try_close_now()
        await trio.aclose_forcefully(accepted)


# ── TLS of a proxy's ────────────────────────────────────────────────────────────


@pytest.mark.parametrize("encrypted", [False, True])
async def test_f151_the_tls_of_a_proxy_is_not_told_as_the_endpoints(
    encrypted: bool, server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    tls = TLS(client_ssl)
    async with (
        proxy_at_work(echo, server_ssl if encrypted else None) as target,
        proxy_at_work(Connecting(), server_ssl) as port,
    ):
        proxy = HTTPProxy("localhost", port, tls=tls)
        endpoint = Endpoint("localhost", target, tls=tls if encrypted else False, proxy=proxy)
        async with ConnectionPool() as pool, pool.connection(endpoint) as conn:
            await conn.send_all(b"ping")
            assert await conn.receive_some() == b"ping"
            assert (conn.ssl_object is not None) == encrypted
            assert conn.alpn_protocol is None


# ── strangers ───────────────────────────────────────────────────────────────────


class Raw:
    """A stream of another library's."""

    def __init__(self) -> None:
        self.closed = False

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "None"),
        ((None, None), "a tuple"),
        (trio.SocketStream, "the class SocketStream"),
        (b"", "a bytes"),
        (5, "5"),
    ],
)
@pytest.mark.parametrize("endpoint", [PLAIN, Endpoint("db.example", 5432, tls=True)])
async def test_f137_a_dial_that_yields_no_stream_says_so(
    returned: Any, said: str, endpoint: Endpoint
) -> None:
    error = await fails(returning(returned), endpoint)
    assert type(error) is ConnectError
    assert (error.phase, error.errno) == ("open", None)
    assert f"Fake.connect() must return a trio.abc.Stream, not {said}" in str(error)


async def test_f137_what_is_no_stream_is_closed_if_it_can_be(
    recwarn: pytest.WarningsRecorder,
) -> None:
    raw: Any = Raw()
    with socket.socket() as sock:
        strangers: list[Any] = [sock, raw, returning(raw).connect(PLAIN)]
        for returned in strangers:
            error = await fails(returning(returned))
            assert "must return a trio.abc.Stream" in str(error)
        assert sock.fileno() == -1
    assert raw.closed
    assert not recwarn.list, "of a coroutine that nobody awaits"


async def test_f137_a_connect_that_is_not_async_says_so() -> None:
    class Plain(Connector):
        def connect(self, endpoint: AnyEndpoint) -> Any:
            return memory_stream_pair()[0]

    error = await fails(Plain())
    assert "can't be used in 'await'" in str(error) or "can't be awaited" in str(error)


async def test_f137_a_stream_that_is_closed_already_is_no_connection() -> None:
    client, server = await tcp_pair()
    await client.aclose()
    await server.aclose()
    error = await fails(returning(client))
    assert error.phase == "open"


# ── errors after the stream is up ───────────────────────────────────────────────


class LoginFailed(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "phase"),
    [
        (LoginFailed("wrong password"), "open"),
        (ExceptionGroup("", [LoginFailed("wrong password")]), "open"),
        (trio.BrokenResourceError("the server hung up"), "open"),
        (ExceptionGroup("", [trio.BrokenResourceError("the server hung up")]), "open"),
        (trio.ClosedResourceError("closed"), "open"),
        (EOFError(), "open"),
        (OSError(errno.ECONNREFUSED, "refused"), "tcp"),
        (OSError("all attempts failed"), "tcp"),
        (PermissionError("wrong password"), "open"),
        (PermissionError(errno.EACCES, "denied"), "tcp"),
        (ConnectionError("too many clients"), "open"),
        (ConnectionRefusedError("refused"), "tcp"),
        (trio.TooSlowError(), "tcp"),
        (TimeoutError(), "tcp"),
        (ExceptionGroup("", [ValueError(), OSError(errno.ECONNREFUSED, "refused")]), "tcp"),
        (socket.gaierror(socket.EAI_NONAME, "no such name"), "resolve"),
        (ssl.SSLError(1, "handshake failure"), "tls"),
    ],
)
async def test_f141_a_login_that_fails_in_a_connector_is_told_as_open(
    error: Exception, phase: DialPhase
) -> None:
    assert (await fails(raising(error))).phase == phase


async def test_f141_a_stream_that_breaks_in_a_connector_was_open() -> None:
    broken = trio.BrokenResourceError()
    broken.__cause__ = ConnectionResetError(errno.ECONNRESET, "reset")
    error = await fails(raising(broken))
    assert (error.phase, error.errno) == ("open", errno.ECONNRESET)


@pytest.mark.parametrize("error", [None, OSError(errno.ECONNRESET, "reset")])
async def test_f141_once_the_default_connector_has_connected_the_rest_is_open(
    error: OSError | None, autojump_clock: MockClock
) -> None:
    class LogsIn(Connector):
        async def connect(self, endpoint: AnyEndpoint) -> trio.abc.Stream:
            with on_network(FakeNetwork(**{"192.0.2.1": (0.0, None)})):
                await TCPConnector().connect(endpoint)
            if error is not None:
                raise error
            await trio.sleep_forever()
            raise AssertionError

    told = await fails(LogsIn(), Endpoint("192.0.2.1", 5432))
    assert told.phase == "open"
    assert isinstance(told, ConnectTimeout) == (error is None)


async def test_f141_a_time_out_is_a_too_slow_error(autojump_clock: MockClock) -> None:
    with pytest.raises(trio.TooSlowError) as caught:
        await open_link(hanging(), PLAIN, 10.0)
    assert isinstance(caught.value, ConnectTimeout)
    assert caught.value.strerror == os.strerror(errno.ETIMEDOUT)


# ── odd exceptions ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error", odd_exceptions(), ids=repr_of)
async def test_f152_an_odd_exception_is_a_connect_error(error: Exception) -> None:
    told = await fails(raising(error))
    cause = told.__cause__
    # A coroutine cannot raise a `StopIteration`: Python wraps it.
    assert cause is error or (cause is not None and cause.__cause__ is error)
    assert told.phase in {"tcp", "tls", "open"}
    assert told.errno is None or isinstance(told.errno, int)
    assert 10 < len(str(told)) < 1000
    again = pickle.loads(pickle.dumps(told))
    assert str(again) == str(told)


async def test_f152_a_half_built_connect_error_is_built_anew() -> None:
    told = await fails(raising(HalfBuilt()))
    assert type(told) is ConnectError
    assert "HalfBuilt" in str(told)


async def test_f152_an_error_for_another_endpoint_is_wrapped() -> None:
    other = ConnectError("no", endpoint=Endpoint("jump.example", 22), phase="tcp", errno=5)
    told = await fails(raising(other))
    assert told.__cause__ is other
    assert "jump.example" in str(told)


async def test_f152_a_connect_that_raises_stop_iteration_at_once() -> None:
    class Plain(Connector):
        def connect(self, endpoint: AnyEndpoint) -> Any:
            raise StopIteration("x")

    assert (await fails(Plain())).phase == "open"


# ── sessions that open a socket of their own ────────────────────────────────────


class WithoutSocket(NativeDriver[str]):
    """Opens a session that cannot say which socket it has."""

    def __init__(self) -> None:
        self.aborted: list[str] = []

    async def connect(self, endpoint: AnyEndpoint) -> str:
        await trio.lowlevel.checkpoint()
        return "session"

    def fileno(self, session: str) -> int:
        raise ValueError("no socket")

    def is_clean(self, session: str) -> bool:
        return True

    def abort(self, session: str) -> None:
        self.aborted.append(session)


async def test_a_session_that_cannot_be_probed_is_aborted() -> None:
    driver = WithoutSocket()
    with pytest.raises(ConnectError, match="no socket") as caught:
        await open_link(hanging(), PLAIN, 1, SessionRules(driver))
    assert caught.value.phase == "open"
    assert driver.aborted == ["session"]

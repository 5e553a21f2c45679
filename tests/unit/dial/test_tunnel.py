from __future__ import annotations

import contextlib
import errno
import ssl
import sys
from collections.abc import Awaitable, Callable

import pytest
import trio

from conpool._connection.tls_tap import encrypt
from conpool._dial.tcp import TCPConnector
from conpool._errors.connect import ConnectError, ProxyError
from conpool._values.endpoint import Endpoint
from conpool._values.proxy import HTTPProxy, SOCKS5Proxy
from conpool._values.tls import TLS
from conpool.testing import cancel_everywhere
from tests._net import LOOPBACK, progress_noted
from tests._proxies import Connecting, Socks, proxy_at_work, read_exactly, read_head, reset
from tests.servers import Certificates
from tests.support.pools import echo

GRANTED = b"HTTP/1.1 200 OK\r\n\r\n"
KINDS = {"http": (HTTPProxy, Connecting), "socks": (SOCKS5Proxy, Socks)}
kinds = pytest.mark.parametrize("kind", ["http", "socks"])


async def answers(stream: trio.abc.Stream, data: bytes = b"hello") -> bool:
    with trio.fail_after(5):
        await stream.send_all(data)
        return await read_exactly(stream, len(data)) == data


async def refused(endpoint: Endpoint) -> ProxyError:
    with trio.fail_after(5), pytest.raises(ConnectError) as caught:
        await TCPConnector().connect(endpoint)
    assert isinstance(caught.value, ProxyError)
    assert caught.value.phase == "proxy"
    return caught.value


@kinds
async def test_a_tunnel_reaches_the_target(kind: str) -> None:
    proxy_class, serve = KINDS[kind]
    async with proxy_at_work(echo) as target, proxy_at_work(serve()) as port:
        endpoint = Endpoint("db.example", target, proxy=proxy_class(LOOPBACK, port))
        with progress_noted() as progress:
            stream = await TCPConnector().connect(endpoint)
        assert progress.phase == "open"
        async with stream:
            assert isinstance(stream, trio.SocketStream)
            assert await answers(stream)


@kinds
async def test_tls_to_the_target_goes_through_the_tunnel(
    kind: str, server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    proxy_class, serve = KINDS[kind]
    async with proxy_at_work(echo, server_ssl) as target, proxy_at_work(serve()) as port:
        tls = TLS(client_ssl)
        endpoint = Endpoint("localhost", target, tls=tls, proxy=proxy_class(LOOPBACK, port))
        async with await TCPConnector().connect(endpoint) as tunnel:
            assert await answers(await encrypt(tunnel, tls, "localhost"))


async def test_tls_in_tls_with_a_proxy_that_is_itself_reached_by_tls(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    serve = Connecting()
    async with proxy_at_work(echo, server_ssl) as target, proxy_at_work(serve, server_ssl) as port:
        tls = TLS(client_ssl)
        proxy = HTTPProxy("localhost", port, tls=tls)
        endpoint = Endpoint("127.0.0.1", target, tls=tls, proxy=proxy)
        async with await TCPConnector().connect(endpoint) as tunnel:
            assert isinstance(tunnel, trio.SSLStream)
            assert await answers(await encrypt(tunnel, tls, "127.0.0.1"), b"x" * 30_000)


async def test_a_plain_target_behind_a_proxy_that_is_reached_by_tls(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext
) -> None:
    async def greet(stream: trio.abc.Stream) -> None:
        await read_head(stream)
        await stream.send_all(GRANTED + b"220 hello")

    async with proxy_at_work(greet, server_ssl) as port:
        proxy = HTTPProxy("localhost", port, tls=TLS(client_ssl))
        async with await TCPConnector().connect(Endpoint("mail", 25, proxy=proxy)) as stream:
            assert await stream.receive_some() == b"220 hello"


async def test_credentials_reach_a_socks_proxy() -> None:
    serve = Socks(credentials=(b"joe", b"hunter2"))
    async with proxy_at_work(echo) as target, proxy_at_work(serve) as port:
        proxy = SOCKS5Proxy(LOOPBACK, port, username="joe", password="hunter2")
        async with await TCPConnector().connect(Endpoint("db", target, proxy=proxy)) as stream:
            assert await answers(stream)
        wrong = SOCKS5Proxy(LOOPBACK, port, username="joe", password="hunter3")
        assert "credentials" in str(await refused(Endpoint("db", target, proxy=wrong)))


# ── what goes wrong ─────────────────────────────────────────────────────────────


async def test_a_certificate_of_the_proxys_that_is_not_accepted(
    certificates: Certificates, client_ssl: ssl.SSLContext
) -> None:
    evil = certificates.server_context(certificates.ca.issue_cert("evil.example"))
    served: list[bytes | bytearray] = []

    async def listen(stream: trio.abc.Stream) -> None:
        served.append(await stream.receive_some())

    async with proxy_at_work(listen, evil) as port:
        proxy = HTTPProxy("localhost", port, username="joe", tls=TLS(client_ssl))
        error = await refused(Endpoint("db.example", 1, proxy=proxy))
    assert "certificate verify failed" in str(error)
    assert served == []  # so the credentials were not sent


async def hang_up(stream: trio.abc.Stream) -> None:
    await stream.receive_some(1)


async def reset_it(stream: trio.abc.Stream) -> None:
    await stream.receive_some(1)
    reset(stream)


@kinds
@pytest.mark.parametrize("serve", [hang_up, reset_it])
async def test_f120_a_proxy_that_goes_away(
    kind: str, serve: Callable[[trio.abc.Stream], Awaitable[None]]
) -> None:
    async with proxy_at_work(serve) as port:
        error = await refused(Endpoint("db.example", 1, proxy=KINDS[kind][0](LOOPBACK, port)))
    assert error.errno == errno.ECONNRESET


@kinds
async def test_f120_a_proxy_that_is_silent_is_cancelled(kind: str) -> None:
    closed = trio.Event()

    async def be_silent(stream: trio.abc.Stream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        closed.set()

    async with proxy_at_work(be_silent) as port:
        endpoint = Endpoint("db.example", 1, proxy=KINDS[kind][0](LOOPBACK, port))
        with progress_noted() as progress, trio.move_on_after(0.05) as scope:
            await TCPConnector().connect(endpoint)
        assert scope.cancelled_caught
        assert progress.phase == "proxy"
        with trio.fail_after(5):
            await closed.wait()


async def test_f120_a_connection_over_which_the_proxy_said_no_is_closed() -> None:
    closed = trio.Event()

    async def say_no(stream: trio.abc.Stream) -> None:
        await read_head(stream)
        await stream.send_all(b"HTTP/1.1 502 Bad Gateway\r\nConnection: keep-alive\r\n\r\n")
        assert await stream.receive_some() == b""
        closed.set()

    async with proxy_at_work(say_no) as port:
        await refused(Endpoint("db.example", 1, proxy=HTTPProxy(LOOPBACK, port)))
        with trio.fail_after(5):
            await closed.wait()


async def test_f120_g7_early_bytes_never_reach_tls(client_ssl: ssl.SSLContext) -> None:
    async def inject(stream: trio.abc.Stream) -> None:
        await read_head(stream)
        await stream.send_all(GRANTED + b"not from the target")
        await stream.receive_some()

    async with proxy_at_work(inject) as port:
        proxy = HTTPProxy(LOOPBACK, port)
        error = await refused(Endpoint("localhost", 1, tls=TLS(client_ssl), proxy=proxy))
    assert "bytes before TLS began" in str(error)


@pytest.mark.parametrize(
    ("kind", "module", "extra"), [("http", "h11", "proxy"), ("socks", "socksio", "socks")]
)
async def test_a_library_that_is_missing_is_named_before_any_socket_is_opened(
    kind: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("conpool._dial.http_connect", "conpool._dial.socks5"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.delattr(sys.modules["conpool"], name.rpartition(".")[2], raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    error = await refused(Endpoint("db.example", 1, proxy=KINDS[kind][0]("192.0.2.1", 1)))
    assert f"pip install 'conpool[{extra}]'" in str(error)
    assert module in str(error)


@kinds
def test_g10_cancelled_anywhere_it_leaves_no_socket_open(kind: str) -> None:
    proxy_class, serve = KINDS[kind]

    async def scenario(scope: trio.CancelScope) -> None:
        async with proxy_at_work(echo) as target, proxy_at_work(serve()) as port:
            endpoint = Endpoint("db.example", target, proxy=proxy_class(LOOPBACK, port))
            with scope:
                await (await TCPConnector().connect(endpoint)).aclose()

    assert cancel_everywhere(scenario) >= 5

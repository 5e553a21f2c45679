"""The ways to a server: TLS, proxies, UNIX sockets, a pool of the caller's own."""

from __future__ import annotations

import ssl
import warnings
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import conpool
from conpool import ConnectionPool
from tests._proxies import Connecting, Socks, proxy_at_work
from tests.servers import Certificates

from .clients import LOOPBACK, Client, Peer, answer_all, serving
from .h2_server import serving_h2


async def test_tls_is_verified(
    client: Client, client_ssl: ssl.SSLContext, server_ssl: ssl.SSLContext
) -> None:
    async with serving(context=server_ssl) as server:
        async with client.open(verify=client_ssl) as session:
            response = await session.get(server.url("/secret"))
            assert response.text == "/secret "
            stream = response.extensions["network_stream"]
            assert stream.get_extra_info("ssl_object").version() == "TLSv1.3"
        for verify in (True, False):
            async with client.open(verify=verify) as session:
                if verify:
                    with pytest.raises(client.lib.ConnectError) as caught:
                        await session.get(server.url())
                    assert isinstance(caught.value.__cause__, conpool.TLSError)
                else:
                    assert (await session.get(server.url())).text == "/ "


@pytest.mark.parametrize("http2", [False, True])
async def test_transports_that_share_a_context_offer_each_its_own(
    client: Client, certificates: Certificates, http2: bool
) -> None:
    context = certificates.client_context()
    both = certificates.server_context(alpn=["h2", "http/1.1"])
    async with (
        serving_h2(context=both) as new,
        serving(context=both) as old,
        client.open(verify=context, http2=http2) as mine,
        client.open(verify=context, http2=not http2),
    ):
        response = await mine.get(new.url if http2 else old.url())
        assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        encrypted = response.extensions["network_stream"].get_extra_info("ssl_object")
        assert encrypted.selected_alpn_protocol() == ("h2" if http2 else "http/1.1")


async def test_transports_with_one_pool_and_context_share_connections(
    client: Client, client_ssl: ssl.SSLContext, server_ssl: ssl.SSLContext
) -> None:
    async with serving(context=server_ssl) as server, ConnectionPool() as pool:
        for _ in range(2):
            async with client.open(pool, verify=client_ssl) as session:
                await session.get(server.url())
        assert server.connections == 1


async def test_sni_hostname_is_sent_and_verified(
    client: Client, client_ssl: ssl.SSLContext, server_ssl: ssl.SSLContext
) -> None:
    names: list[str | None] = []
    server_ssl.sni_callback = lambda _sock, name, _context: names.append(name)
    try:
        async with serving(context=server_ssl) as server, client.open(verify=client_ssl) as session:
            extensions = {"sni_hostname": "localhost"}
            await session.get(server.url(), extensions=extensions)
            with pytest.raises(client.lib.ConnectError):
                await session.get(server.url(), extensions={"sni_hostname": "example.org"})
    finally:
        server_ssl.sni_callback = None  # the context is for the whole run
    assert names == ["localhost", "example.org"]


async def test_a_client_certificate(client: Client, certificates: Certificates) -> None:
    context = certificates.server_context(require_client=True)
    async with serving(context=context) as server:
        verify = certificates.client_context()
        pair = (str(certificates.client_cert), str(certificates.client_key))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            transport = client.transport(verify=verify, cert=pair)
        async with client.lib.AsyncClient(transport=transport) as session:
            assert (await session.get(server.url())).text == "/ "


async def test_trust_env(
    client: Client,
    certificates: Certificates,
    server_ssl: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca_file))
    async with serving(context=server_ssl) as server:
        async with client.open() as session:
            assert (await session.get(server.url())).text == "/ "
        async with client.open(trust_env=False) as session:
            with pytest.raises(client.lib.ConnectError):
                await session.get(server.url())


# ── proxies ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("secure_hop", [False, True])
async def test_a_plain_request_names_the_whole_url(
    client: Client, certificates: Certificates, secure_hop: bool
) -> None:
    context = certificates.server_context() if secure_hop else None
    async with serving(context=context) as proxy:
        way = client.lib.Proxy(
            proxy.url(),
            auth=("joe", "secret"),
            headers={"X-Proxy": "yes"},
            ssl_context=certificates.client_context() if secure_hop else None,
        )
        async with client.open(proxy=way) as session:
            await session.get("http://example.org/a?b=c")
            await session.get("http://other.example:8080/")
        assert [request.target for request in proxy.requests] == [
            "http://example.org/a?b=c",
            "http://other.example:8080/",
        ]
        assert proxy.requests[0].headers["host"] == "example.org"
        assert proxy.requests[0].headers["x-proxy"] == "yes"
        assert proxy.requests[0].headers["proxy-authorization"] == "Basic am9lOnNlY3JldA=="
        assert proxy.connections == 1


@pytest.mark.parametrize("secure_hop", [False, True])
async def test_tls_goes_through_a_tunnel(
    client: Client, certificates: Certificates, secure_hop: bool
) -> None:
    proxy = Connecting()
    hop = certificates.server_context() if secure_hop else None
    async with (
        serving(context=certificates.server_context()) as server,
        proxy_at_work(proxy, hop) as port,
    ):
        way = client.lib.Proxy(
            f"http{'s' * secure_hop}://joe:secret@{LOOPBACK}:{port}",
            ssl_context=certificates.client_context() if secure_hop else None,
        )
        async with client.open(proxy=way, verify=certificates.client_context()) as session:
            assert (await session.get(server.url("/far"))).text == "/far "
        assert server.requests[0].target == "/far"
        assert "proxy-authorization" not in server.requests[0].headers
        assert b"Basic am9lOnNlY3JldA==" in proxy.heads[0]


async def test_http2_goes_through_a_tunnel(client: Client, certificates: Certificates) -> None:
    proxy = Connecting()
    context = certificates.server_context(alpn=["h2"])
    async with serving_h2(context=context) as server, proxy_at_work(proxy) as port:
        options = {"verify": certificates.client_context(), "http2": True}
        async with client.open(proxy=f"http://{LOOPBACK}:{port}", **options) as session:
            response = await session.get(server.url + "/far")
            assert (response.text, response.http_version) == ("/far", "HTTP/2")
        assert len(proxy.heads) == 1


async def test_a_proxy_that_refuses(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"", status=407)

    async with serving(script) as proxy, client.open(proxy=proxy.url()) as session:
        with pytest.raises(client.lib.ProxyError, match="407") as caught:
            await session.get("https://example.org/")
        assert isinstance(caught.value.__cause__, conpool.ProxyError)


async def test_headers_that_a_tunnel_cannot_carry_are_refused(client: Client) -> None:
    way = client.lib.Proxy("http://127.0.0.1:1", headers={"X-Proxy": "yes"})
    async with client.open(proxy=way) as session:
        with pytest.raises(client.lib.UnsupportedProtocol, match="tunnel"):
            await session.get("https://example.org/")


@pytest.mark.parametrize("credentials", [None, (b"joe", b"secret")])
async def test_socks(client: Client, credentials: tuple[bytes, bytes] | None) -> None:
    proxy = Socks(credentials=credentials)
    user = "joe:secret@" if credentials else ""
    async with serving() as server, proxy_at_work(proxy) as port:
        async with client.open(proxy=f"socks5://{user}{LOOPBACK}:{port}") as session:
            response = await session.get(f"http://somewhere.example:{server.port}/far")
            assert response.text == "/far "
        assert proxy.asked == [(3, b"somewhere.example", server.port)]


# ── this machine ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_unix_socket(
    client: Client, certificates: Certificates, tmp_path: Path, encrypted: bool
) -> None:
    path = str(tmp_path / "s")
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(path)
    sock.listen()
    listener = trio.SocketListener(sock)

    async def serve(stream: trio.abc.Stream) -> None:
        if encrypted:
            stream = trio.SSLStream(stream, certificates.server_context(), server_side=True)
        with suppress(trio.BrokenResourceError):
            async with stream:
                await answer_all(Peer(stream, server, 1))

    async with serving() as server, trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, serve, [listener]))
        async with client.open(uds=path, verify=certificates.client_context()) as session:
            response = await session.get(f"http{'s' * encrypted}://localhost/near")
            assert response.text == "/near "
            if encrypted:
                with pytest.raises(client.lib.ConnectError):
                    await session.get("https://example.org/")
        nursery.cancel_scope.cancel()


async def test_a_local_address(client: Client) -> None:
    peers: list[Any] = []

    async def script(peer: Peer) -> None:
        assert isinstance(peer.stream, trio.SocketStream)
        peers.append(peer.stream.socket.getpeername()[0])
        await answer_all(peer)

    async with serving(script) as server, client.open(local_address="127.0.0.2") as session:
        await session.get(server.url())
    assert peers == ["127.0.0.2"]


async def test_a_pool_of_the_callers_own_stays_open(client: Client) -> None:
    async with serving() as server, ConnectionPool() as pool, AsyncExitStack() as stack:
        for _ in range(2):
            session = await stack.enter_async_context(client.open(pool))
            await session.get(server.url())
        await stack.aclose()
        assert not pool.closed
        assert server.connections == 1


async def test_an_address_of_version_6(client: Client) -> None:
    try:
        listeners = await trio.open_tcp_listeners(0, host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await answer_all(Peer(stream, server, 1))

    async with serving() as server, trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, serve, listeners))
        port = listeners[0].socket.getsockname()[1]
        async with client.open() as session:
            assert (await session.get(f"http://[::1]:{port}/six")).text == "/six "
        nursery.cancel_scope.cancel()

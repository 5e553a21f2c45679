"""The open end of a connection: how the pool probes and closes it."""

from __future__ import annotations

import socket
import ssl

import pytest
import trio
from trio.testing import memory_stream_pair

from conpool import TLS, CloseReason
from conpool._connection.link import Link
from conpool._connection.session import SessionRules
from tests.support.drivers import make_driver
from tests.support.faults import close_stream
from tests.support.loopback_servers import exchange, tcp_pair, tls_pair


async def test_a_plain_connection() -> None:
    client, server = await tcp_pair()
    async with server:
        link = Link(client)
        assert link.fileno() == client.socket.fileno()
        assert link.peer_address == server.socket.getsockname()
        assert link.peer_ip == "127.0.0.1"
        assert link.ssl_object is None
        assert link.session is None
        assert not link.has_goodbye
        assert not link.poll(0)
        assert link.probe() is None
        assert repr(link).startswith(f"<Link to {link.peer_address}")

        await server.send_all(b"x")
        with trio.fail_after(5):
            await trio.lowlevel.wait_readable(client.socket)
        assert link.poll(0)
        assert link.probe() is CloseReason.UNREAD_DATA

        assert link.try_close_now()
        assert link.fileno() == -1
        assert client.socket.fileno() == -1


@pytest.mark.parametrize("layers", [1, 2])
async def test_a_connection_with_tls(
    server_ssl: ssl.SSLContext, client_ssl: ssl.SSLContext, layers: int
) -> None:
    low_client, low_server = await tcp_pair()
    client, server = await tls_pair(server_ssl, TLS(client_ssl), (low_client, low_server))
    if layers == 2:
        client, server = await tls_pair(server_ssl, TLS(client_ssl), (client, server))
    link = Link(client, encrypted=True)
    assert link.fileno() == low_client.socket.fileno()
    assert link.peer_address == low_server.socket.getsockname()
    assert link.ssl_object is client._ssl_object
    assert link.has_goodbye
    assert link.poll(0), "the tickets are unread"
    assert link.probe() is None
    assert not link.poll(0)
    assert link.try_close_now()
    assert link.fileno() == -1
    low_server.socket.close()


async def test_a_connection_in_memory_has_no_socket_and_is_taken_to_be_alive() -> None:
    client, server = memory_stream_pair()
    link = Link(client)
    assert link.fileno() == -1
    assert link.peer_address is None
    assert link.peer_ip is None
    await server.send_all(b"x")
    assert not link.poll(0)
    assert link.probe() is None


async def test_a_connection_whose_peer_has_gone_already_has_no_address() -> None:
    client, server = await tcp_pair()
    async with client:
        close_stream(server, "reset")
        with trio.fail_after(5):
            await trio.lowlevel.wait_readable(client.socket)
        link = Link(client)
        assert link.peer_address is None
        assert link.peer_ip is None
        assert link.probe() is CloseReason.PEER_CLOSED


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this platform has no UNIX sockets")
async def test_a_unix_socket_has_no_ip_address() -> None:
    client, server = trio.socket.socketpair(socket.AF_UNIX)
    with client, server:
        assert Link(trio.SocketStream(client)).peer_ip is None


async def test_g6_once_closed_its_wire_leads_nowhere() -> None:
    client, server = await tcp_pair()
    async with server:
        link = Link(client)
        exchange = link.exchange
        link.try_close_now()
        for operation in (
            exchange.send_all(b"x"),
            exchange.receive_some(),
            exchange.wait_send_all_might_not_block(),
            exchange.send_eof(),
        ):
            with pytest.raises(trio.ClosedResourceError):
                await operation
        await exchange.aclose()


class Slow(trio.abc.Stream):
    """Only an await can close it; until then it works."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"x"

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_g6_not_even_while_its_stream_has_still_to_be_closed() -> None:
    link = Link(Slow())
    exchange = link.exchange
    await exchange.send_all(b"x")
    assert not link.try_close_now()
    with pytest.raises(trio.ClosedResourceError):
        await exchange.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await exchange.receive_some()


async def test_what_moves_through_its_wire_moves_on_the_stream() -> None:
    client, server = await tcp_pair()
    async with client, server, trio.open_nursery() as nursery:

        async def answer() -> None:
            await server.send_all(await server.receive_some())

        nursery.start_soon(answer)
        await exchange(Link(client).exchange)


async def test_what_a_companion_has_still_to_read_is_its_own_business() -> None:
    async def run(session: object) -> None:
        await trio.sleep_forever()

    client, server = await tcp_pair()
    async with client, server:
        link = Link(client, SessionRules(make_driver(run=run)))
        link.begin_session(None)
        await server.send_all(b"x")
        with trio.fail_after(5):
            await trio.lowlevel.wait_readable(client.socket)
        assert not link.poll(0)
        assert link.probe() is None
        assert await client.receive_some() == b"x"

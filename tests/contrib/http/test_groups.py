"""A host that several servers serve."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import cycle
from typing import Any, Final

import pytest
import trio

from conpool import (
    AnyEndpoint,
    ConfigError,
    Endpoint,
    EndpointGroup,
    NoHealthyEndpoint,
    PoolConfig,
    UnixEndpoint,
)
from tests.servers import Certificates, Nginx
from tests.support.clean import PATIENCE
from tests.support.load import Load

from .clients import LOOPBACK, ONE_LIBRARY, Client, Peer, serving

WORKERS: Final = 8


def load_on(client: Client, session: Any, url: str) -> Load:
    methods = cycle(("GET", "POST"))

    async def ask(served_by: Callable[[AnyEndpoint], None]) -> None:
        async def trace(event: str, info: Mapping[str, Any]) -> None:
            if event == "conpool.acquire.complete":
                served_by(info["return_value"].endpoint)

        response = await session.request(next(methods), url, extensions={"trace": trace})
        assert response.text == "/echo/1\n"

    lib = client.lib
    lost_by = (lib.ReadError, lib.WriteError, lib.RemoteProtocolError)
    return Load(ask, *lost_by, more=30, patience=PATIENCE)


@ONE_LIBRARY
async def test_a_server_of_a_group_is_killed_and_comes_back_under_load(
    client: Client, certificates: Certificates
) -> None:
    """Only requests whose connection was open on it fail; no acquire does, and it is used again."""
    with ExitStack() as stack:
        servers = [stack.enter_context(Nginx(certificates)) for _ in range(3)]
        down, *others = members = [Endpoint(LOOPBACK, server.port) for server in servers]
        transport = client.transport(
            config=PoolConfig(max_connections_per_endpoint=4),
            groups={"api.example": EndpointGroup(members)},
        )
        async with (
            client.lib.AsyncClient(transport=transport, timeout=PATIENCE) as session,
            trio.open_nursery() as nursery,
        ):
            load = load_on(client, session, "http://api.example/echo/1")
            for _ in range(WORKERS):
                nursery.start_soon(load.work)
            await load.wait_for(*members)
            servers[0].kill()
            await load.wait_for(*others)
            servers[0].start()
            await load.wait_for(*members)
            assert load.lost.keys() <= {down}
            assert load.lost[down] <= WORKERS
            nursery.cancel_scope.cancel()


async def say_host(peer: Peer) -> None:
    while (request := await peer.request()) is not None:
        await peer.answer(request.headers["host"].encode())


async def test_tls_and_the_host_header_are_those_of_the_url(
    client: Client, client_ssl: ssl.SSLContext, server_ssl: ssl.SSLContext
) -> None:
    names: list[str | None] = []
    server_ssl.sni_callback = lambda _sock, name, _context: names.append(name)
    try:
        async with serving(say_host, server_ssl) as one, serving(say_host, server_ssl) as other:
            group = EndpointGroup(Endpoint(LOOPBACK, server.port) for server in (one, other))
            async with client.open(verify=client_ssl, groups={"LOCALHOST": group}) as session:
                for _ in range(4):
                    assert (await session.get("https://localhost/")).text == "localhost"
            assert (one.connections, other.connections) == (1, 1)
            assert names == ["localhost"] * 2
            async with client.open(verify=client_ssl, groups={"other.example": group}) as session:
                with pytest.raises(client.lib.ConnectError):
                    await session.get("https://other.example/")  # another host's certificate
    finally:
        server_ssl.sni_callback = None


async def test_a_key_with_a_port_is_for_that_port_alone(client: Client) -> None:
    async with serving() as server, serving() as decoy:
        away, here = (EndpointGroup([Endpoint(LOOPBACK, one.port)]) for one in (decoy, server))
        groups = {"api.example": away, "api.example:80": here, f"{LOOPBACK}:1": away}
        async with client.open(groups=groups) as session:
            await session.get("http://api.example/")
            await session.get(server.url())  # no group
            assert (server.connections, decoy.connections) == (1, 0)
            await session.get("http://api.example:8080/")
            assert decoy.connections == 1


async def test_all_servers_are_down(client: Client) -> None:
    async with serving() as one, serving() as other:
        ports = [one.port, other.port]
    group = EndpointGroup(Endpoint(LOOPBACK, port) for port in ports)
    async with client.open(groups={"api.example": group}) as session:
        with pytest.raises(client.lib.ConnectError) as caught:
            await session.get("http://api.example/")
    assert isinstance(caught.value.__cause__, NoHealthyEndpoint)
    assert set(caught.value.__cause__.reasons) == set(group.endpoints)


@pytest.mark.parametrize(
    ("key", "group", "options"),
    [
        ("http://api.example", EndpointGroup([Endpoint("a", 1)]), {}),
        ("me@api.example", EndpointGroup([Endpoint("a", 1)]), {}),
        ("", EndpointGroup([Endpoint("a", 1)]), {}),
        ("api.example:x", EndpointGroup([Endpoint("a", 1)]), {}),
        ("api.example", ["a:1"], {}),
        ("api.example", EndpointGroup([Endpoint("a", 1, tls=True)]), {}),
        ("api.example", EndpointGroup([UnixEndpoint("/run/a", partition=1)]), {}),
        ("api.example", EndpointGroup([Endpoint("a", 1)]), {"uds": "/run/a"}),
        ("api.example", EndpointGroup([Endpoint("a", 1)]), {"proxy": "http://proxy:1"}),
    ],
)
async def test_groups_that_make_no_sense(
    client: Client, key: str, group: Any, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        client.transport(groups={key: group}, **options)

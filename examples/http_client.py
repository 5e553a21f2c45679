"""An HTTP/1.1 client in a page: h11 speaks the protocol, conpool lends the connections.

    python examples/http_client.py 127.0.0.1 8080 /index.html --requests 200

The client has three duties, because only the client understands the bytes:

1. It reads each reply to its end, inside the block.
2. It retires a connection that either side wants to close (`Connection: close`).
3. If a connection that was not opened for this request turns out to be closed, it sends the
   request once more, provided that the request may be sent twice. The server may close the
   connection while our request is on its way, and no pool can prevent that.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import h11
import trio

import conpool


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: dict[bytes, bytes]
    body: bytes


class StaleConnection(Exception):
    """The server closed a connection that had been idle."""


async def get(
    pool: conpool.ConnectionPool[None], endpoint: conpool.Endpoint, path: str = "/"
) -> Response:
    """Fetch a page."""
    host = endpoint.host if endpoint.port in {80, 443} else f"{endpoint.host}:{endpoint.port}"
    request = h11.Request(method="GET", target=path, headers=[("Host", host)])
    try:
        return await exchange(pool, endpoint, request)
    except StaleConnection:
        # A GET may be sent twice, and a new connection cannot be stale.
        return await exchange(pool, endpoint, request, fresh=True)


async def exchange(
    pool: conpool.ConnectionPool[None],
    endpoint: conpool.Endpoint,
    request: h11.Request,
    *,
    fresh: bool = False,
) -> Response:
    """Send one request without a body, and read the whole reply."""
    async with pool.connection(endpoint, fresh=fresh) as conn:
        http = h11.Connection(h11.CLIENT)
        try:
            head, end = http.send(request), http.send(h11.EndOfMessage())
            await conn.send_all((head or b"") + (end or b""))
            response = await read_response(conn, http)
        except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
            if conn.fresh:
                raise
            raise StaleConnection from error
        if not may_be_reused(http):
            conn.retire()
        return response


async def read_response(stream: trio.abc.Stream, http: h11.Connection) -> Response:
    head: h11.Response | None = None
    body = bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            return Response(head.status_code, dict(head.headers), bytes(body))


def may_be_reused(http: h11.Connection) -> bool:
    """Whether both sides are done, neither wants to close, and nothing more has arrived."""
    both_done = http.our_state is h11.DONE and http.their_state is h11.DONE
    return both_done and not http.trailing_data[0]


async def main(
    host: str, port: int, path: str = "/", *, requests: int = 100, tls: bool = False
) -> conpool.EndpointStats:
    """Fetch a page many times over at most ten connections; return the statistics."""
    endpoint = conpool.Endpoint(host, port, tls=tls)

    async with conpool.ConnectionPool(name="http") as pool:

        async def fetch() -> None:
            response = await get(pool, endpoint, path)
            if response.status != 200:
                print(f"{response.status} for {path}")

        async with trio.open_nursery() as nursery:
            for _ in range(requests):
                nursery.start_soon(fetch)
        print(pool.all_stats())
        return pool.stats(endpoint)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("path", nargs="?", default="/")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--tls", action="store_true")
    a = parser.parse_args()
    trio.run(lambda: main(a.host, a.port, a.path, requests=a.requests, tls=a.tls))

"""One more try, on a new connection, for a request that may be sent twice."""

from __future__ import annotations

import trio
from shouting import receive_exactly, shouting_server

import conpool

Pool = conpool.ConnectionPool[None]


class StaleConnection(Exception):
    """The peer closed a connection that had been idle, perhaps before it saw the request."""


async def ask(pool: Pool, endpoint: conpool.Endpoint, text: bytes) -> bytes:
    try:
        return await ask_once(pool, endpoint, text)
    except StaleConnection:
        return await ask_once(pool, endpoint, text, fresh=True)


async def ask_once(
    pool: Pool, endpoint: conpool.Endpoint, text: bytes, *, fresh: bool = False
) -> bytes:
    async with pool.connection(endpoint, fresh=fresh) as conn:
        try:
            await conn.send_all(text)
            return await receive_exactly(conn, len(text))
        except (trio.BrokenResourceError, EOFError) as error:
            if conn.fresh:
                raise  # age cannot be the reason: the connection was opened for this request
            raise StaleConnection from error


async def main() -> None:
    async with shouting_server() as endpoint, conpool.ConnectionPool() as pool:
        print(await ask(pool, endpoint, b"once"))
        print(await ask(pool, endpoint, b"twice"))


if __name__ == "__main__":
    trio.run(main)

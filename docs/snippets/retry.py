"""One more try, on a new connection, for a request that may be sent twice."""

from __future__ import annotations

import trio
from shouting import receive_exactly, shouting_server

import conpool

Pool = conpool.ConnectionPool[None]


# begin
class StaleConnection(Exception):
    """A kept connection turned out to be closed: nothing of the reply was read."""


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
            if conn.reused:
                raise StaleConnection from error
            raise  # a new connection has no such excuse


# end


async def main() -> None:
    async with shouting_server() as endpoint, conpool.ConnectionPool() as pool:
        assert await ask(pool, endpoint, b"once") == b"ONCE"
        assert await ask(pool, endpoint, b"twice") == b"TWICE"


if __name__ == "__main__":
    trio.run(main)

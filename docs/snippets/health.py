"""Ask the peer before the connection is lent again."""

from __future__ import annotations

import trio
from first import ask
from shouting import receive_exactly, shouting_server

import conpool


# begin
async def answers(conn: conpool.Connection[None]) -> bool:
    await conn.send_all(b"ping")
    return await receive_exactly(conn, 4) == b"PING"


async def main() -> None:
    async with (
        shouting_server() as endpoint,
        conpool.ConnectionPool(health_check=answers) as pool,
    ):
        await ask(pool, endpoint, b"hello")  # a new connection is not checked
        await ask(pool, endpoint, b"hello again")  # this one is: "ping", then the question


# end

if __name__ == "__main__":
    trio.run(main)

"""Two questions, one connection."""

from __future__ import annotations

import trio
from shouting import receive_exactly, shouting_server

import conpool


async def ask(pool: conpool.ConnectionPool[None], endpoint: conpool.Endpoint, text: bytes) -> bytes:
    async with pool.connection(endpoint) as conn:
        await conn.send_all(text)
        reply = await receive_exactly(conn, len(text))
        print(f"{reply.decode()} (connection {conn.id}, use {conn.uses})")
        return reply


async def main() -> None:
    async with shouting_server() as endpoint, conpool.ConnectionPool() as pool:
        await ask(pool, endpoint, b"hello")
        await ask(pool, endpoint, b"still there?")


if __name__ == "__main__":
    trio.run(main)

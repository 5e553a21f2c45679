"""A lease that outlives any single block."""

from __future__ import annotations

import trio
from shouting import receive_exactly, shouting_server

import conpool


class Conversation:
    """Any number of questions over one connection, until `end`."""

    def __init__(self, pool: conpool.ConnectionPool[None], conn: conpool.Connection[None]) -> None:
        self.pool = pool
        self.conn = conn

    async def ask(self, text: bytes) -> bytes:
        try:
            await self.conn.send_all(text)
            return await receive_exactly(self.conn, len(text))
        except BaseException:
            self.pool.discard(self.conn)  # the reply may still come: nobody else may read it
            raise

    def end(self) -> None:
        self.pool.release(self.conn)  # does nothing if `ask` has discarded the connection


async def main() -> None:
    async with shouting_server() as endpoint, conpool.ConnectionPool() as pool:
        conversation = Conversation(pool, await pool.acquire(endpoint))
        try:
            print(await conversation.ask(b"hello"))
            print(await conversation.ask(b"goodbye"))
        finally:
            conversation.end()
        assert pool.stats(endpoint).idle == 1  # the next caller may have the connection


if __name__ == "__main__":
    trio.run(main)

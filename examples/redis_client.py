"""A Redis client in a page: hiredis speaks the protocol, conpool lends the sessions.

    python examples/redis_client.py redis://127.0.0.1:6379/0
    python examples/redis_client.py redis://user:password@127.0.0.1:6379/2

The driver logs in and selects the database that the URL names. Before the pool lends a session that
was idle, it sends PING on it and waits for PONG. So it finds out if the server hangs, or if a proxy
dropped the connection without a word, and the caller gets a session that works.

After a command that changes the connection itself (SELECT, MULTI, SUBSCRIBE), call `conn.retire()`:
the next caller would find it changed. Another database is another endpoint.
"""

from __future__ import annotations

import argparse
from typing import Any

import hiredis
import trio

import conpool

INCOMPLETE = object()


class Session:
    """One connection: runs one command after the other."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.reader = hiredis.Reader(notEnoughData=INCOMPLETE)
        self.owed = 0  # replies that were asked for and not read

    async def command(self, *command: Any) -> Any:
        """Run one command.

        Raises:
            hiredis.ReplyError: The server refused the command.
        """
        self.owed += 1
        await self.stream.send_all(hiredis.pack_command(command))
        while (reply := self.reader.gets()) is INCOMPLETE:
            received = await self.stream.receive_some()
            if not received:
                raise trio.BrokenResourceError("the server hung up in mid-reply")
            self.reader.feed(bytes(received))
        self.owed -= 1
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply


class RedisDriver(conpool.Driver[Session]):
    """Logs in to Redis or Valkey, and asks for a sign of life."""

    async def open(self, stream: trio.abc.Stream, endpoint: conpool.AnyEndpoint) -> Session:
        session = Session(stream)
        login = endpoint.login or conpool.Login()
        if login.password is not None:
            await session.command("AUTH", login.username or "default", login.password)
        await session.command("SELECT", login.database or 0)
        return session

    async def check(self, session: Session) -> bool:
        return bool(await session.command("PING") == b"PONG")

    def is_clean(self, session: Session) -> bool:
        return session.owed == 0 and not session.reader.has_data()


def open_pool(config: conpool.PoolConfig | None = None) -> conpool.ConnectionPool[Session]:
    """Make a pool whose idle sessions must answer PING before they are lent again."""
    config = config or conpool.PoolConfig(health_check_timeout=1.0)
    return conpool.ConnectionPool(config, driver=RedisDriver(), name="redis")


async def execute(
    pool: conpool.ConnectionPool[Session], endpoint: conpool.AnyEndpoint, *command: Any
) -> Any:
    """Run one command on any session. A refusal costs no connection."""
    async with pool.connection(endpoint) as conn:
        return await conn.session.command(*command)


async def main(url: str, *, tasks: int = 50, rounds: int = 20) -> int:
    """Let many tasks count together on the server; return the total."""
    endpoint = conpool.Endpoint.from_url(url)

    async with open_pool() as pool:

        async def count() -> None:
            for _ in range(rounds):
                await execute(pool, endpoint, "INCR", "conpool:example")

        await execute(pool, endpoint, "SET", "conpool:example", 0, "EX", 60)
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(count)
        total = int(await execute(pool, endpoint, "GET", "conpool:example"))
        print(f"{tasks} tasks counted to {total:,}")
        print(pool.all_stats())
        return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("url")
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=20)
    a = parser.parse_args()
    trio.run(lambda: main(a.url, tasks=a.tasks, rounds=a.rounds))

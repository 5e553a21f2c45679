"""A Redis client in a page: hiredis speaks the protocol, conpool lends the connections.

    python examples/redis_client.py 127.0.0.1 6379

Before the pool lends a connection that was idle, it sends PING on it and waits for PONG. So it
finds out if the server hangs, or if a proxy dropped the connection without a word, and the caller
gets a connection that works.

Do not send commands that change the connection itself (SELECT, MULTI, SUBSCRIBE): the next caller
would find it changed. For another database, give the endpoint a `partition`.
"""

from __future__ import annotations

import argparse
from typing import Any

import hiredis
import trio

import conpool

INCOMPLETE = object()


def open_pool(config: conpool.PoolConfig | None = None) -> conpool.ConnectionPool[None]:
    """Make a pool whose idle connections must answer PING before they are lent again."""
    return conpool.ConnectionPool(
        config or conpool.PoolConfig(health_check_timeout=1.0), health_check=ping, name="redis"
    )


async def execute(
    pool: conpool.ConnectionPool[None], endpoint: conpool.Endpoint, *command: Any
) -> Any:
    """Run one command on a pooled connection.

    Raises:
        hiredis.ReplyError: The server refused the command.
    """
    async with pool.connection(endpoint) as conn:
        reply = await call(conn, *command)
    # After the block: the reply was read to its end, so the pool may keep the connection.
    if isinstance(reply, hiredis.ReplyError):
        raise reply
    return reply


async def call(stream: trio.abc.Stream, *command: Any) -> Any:
    """Send one command and read its reply to the end; a refusal is a reply, too."""
    await stream.send_all(hiredis.pack_command(command))
    reader = hiredis.Reader(notEnoughData=INCOMPLETE)
    while (reply := reader.gets()) is INCOMPLETE:
        received = await stream.receive_some()
        if not received:
            raise trio.BrokenResourceError("the server hung up in mid-reply")
        reader.feed(bytes(received))
    if reader.has_data():
        raise trio.BrokenResourceError("the server sent more than was asked for")
    return reply


async def ping(conn: conpool.Connection[None]) -> bool:
    """Ask the server whether this connection still works."""
    return bool(await call(conn, "PING") == b"PONG")


async def main(host: str, port: int, *, tasks: int = 50, rounds: int = 20) -> int:
    """Let many tasks count together on the server; return the total."""
    endpoint = conpool.Endpoint(host, port)

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
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=20)
    a = parser.parse_args()
    trio.run(lambda: main(a.host, a.port, tasks=a.tasks, rounds=a.rounds))

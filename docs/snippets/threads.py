"""A worker thread uses a server that shouts back, through the pool of the tasks."""

from __future__ import annotations

import trio
from shouting import shouting_server

import conpool


def work(pool: conpool.ConnectionPool, endpoint: conpool.Endpoint) -> bytes:
    with pool.blocking.connection(endpoint) as conn:
        conn.send_all(b"hello\n", timeout=5)
        answer = b""
        while not answer.endswith(b"\n"):
            received = conn.receive_some(timeout=5)
            if not received:
                raise EOFError("the server hung up")
            answer += received
        return answer


async def main() -> None:
    async with shouting_server() as endpoint, conpool.ConnectionPool() as pool:
        for _ in range(2):
            print(await trio.to_thread.run_sync(work, pool, endpoint))
        print(pool.stats(endpoint).total_reused, "lease reused the connection")


if __name__ == "__main__":
    trio.run(main)

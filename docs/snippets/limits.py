"""A hundred tasks, five connections."""

from __future__ import annotations

import trio
from first import ask
from shouting import shouting_server

import conpool


async def main() -> None:
    config = conpool.PoolConfig(max_connections_per_endpoint=5)
    async with (
        shouting_server(delay=0.01) as endpoint,
        conpool.ConnectionPool(config, name="shouting") as pool,
    ):
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(ask, pool, endpoint, b"number %d" % number)
        print(pool.all_stats())
        assert pool.stats(endpoint).total_created == 5


if __name__ == "__main__":
    trio.run(main)

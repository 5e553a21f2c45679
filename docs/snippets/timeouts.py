"""A task that would wait for itself, and the error that tells it so."""

from __future__ import annotations

import trio
from shouting import shouting_server

import conpool


async def main() -> None:
    config = conpool.PoolConfig(max_connections_per_endpoint=1)
    async with shouting_server() as endpoint, conpool.ConnectionPool(config, name="one") as pool:
        async with pool.connection(endpoint):
            try:
                async with pool.connection(endpoint, timeout=0.1):
                    pass
            except conpool.AcquireTimeout as error:
                print(error)
                assert error.phase == "queue"
                assert error.deadlock


if __name__ == "__main__":
    trio.run(main)

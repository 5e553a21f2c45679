"""A caller that gives up, and what becomes of its connection."""

from __future__ import annotations

import trio
from first import ask
from shouting import receive_exactly, shouting_server

import conpool


def tell(info: conpool.ConnectionInfo, reason: conpool.CloseReason) -> None:
    print(f"connection {info.id} closed: {reason.value}")


async def main() -> None:
    async with (
        shouting_server(delay=0.2) as endpoint,
        conpool.ConnectionPool(on_closed=tell) as pool,
    ):
        async with pool.connection(endpoint) as conn:
            await conn.send_all(b"secret")
            with trio.move_on_after(0.1):
                await receive_exactly(conn, len(b"secret"))
            # The block ends as if nothing had happened; "SECRET" is still on its way.
        reply = await ask(pool, endpoint, b"harmless")
        assert reply == b"HARMLESS"


if __name__ == "__main__":
    trio.run(main)

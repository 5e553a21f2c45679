"""A connector that knows where its servers are, and tells the pool when one moves."""

from __future__ import annotations

import trio
from first import ask
from shouting import shouting_server

import conpool

REGISTRY = {"shouting": "127.0.0.1"}


# begin
async def find(service: str) -> str:
    await trio.lowlevel.checkpoint()  # or ask your registry
    return REGISTRY[service]


class Registered(conpool.Connector):
    async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
        assert isinstance(endpoint, conpool.Endpoint)
        return await trio.open_tcp_stream(await find(endpoint.host), endpoint.port)

    async def addresses(self, endpoint: conpool.AnyEndpoint) -> frozenset[str] | None:
        assert isinstance(endpoint, conpool.Endpoint)
        return frozenset({await find(endpoint.host)})


# end


async def main() -> None:
    closed = trio.Event()

    def tell(info: conpool.ConnectionInfo, reason: conpool.CloseReason) -> None:
        print(f"connection {info.id} closed: {reason.value}")
        closed.set()

    config = conpool.PoolConfig(reap_interval=0.05)
    async with (
        shouting_server() as server,
        conpool.ConnectionPool(config, connector=Registered(), on_closed=tell) as pool,
    ):
        await ask(pool, conpool.Endpoint("shouting", server.port), b"hello")
        REGISTRY["shouting"] = "127.0.0.2"
        with trio.fail_after(10):
            await closed.wait()


if __name__ == "__main__":
    trio.run(main)

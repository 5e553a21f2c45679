"""A session that counts the replies it is owed, so that the driver knows when it is clean."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio
from memcache import SERVER, Memcache, MemcacheError, Reply, set_request

import conpool


# begin
class CountingMemcache(Memcache):
    owed = 0

    async def ask(self, request: bytes, read_reply: Callable[[], Awaitable[Reply]]) -> Reply:
        [reply] = await self.ask_all([request], read_reply)
        return reply

    async def ask_all(
        self, requests: list[bytes], read_reply: Callable[[], Awaitable[Reply]]
    ) -> list[Reply]:
        self.owed += len(requests)
        await self.stream.send_all(b"".join(requests))
        replies: list[Reply] = []
        refusal: MemcacheError | None = None
        for _ in requests:
            try:
                replies.append(await read_reply())
            except MemcacheError as error:  # a refusal is a reply: read the others, too
                refusal = refusal or error
            self.owed -= 1
        if refusal is not None:
            raise refusal
        return replies

    async def set_many(self, values: Mapping[str, bytes]) -> None:
        await self.ask_all([set_request(*item) for item in values.items()], self.read_line)


class CountingDriver(conpool.Driver[CountingMemcache]):
    async def open(
        self, stream: trio.abc.Stream, endpoint: conpool.AnyEndpoint
    ) -> CountingMemcache:
        session = CountingMemcache(stream)
        await session.ask(b"version\r\n", session.read_line)
        return session

    def is_clean(self, session: CountingMemcache) -> bool:
        return session.owed == 0 and not session.unread


async def main() -> None:
    def tell(info: conpool.ConnectionInfo, reason: conpool.CloseReason) -> None:
        print(f"connection {info.id} closed: {reason.value}")

    async with conpool.ConnectionPool(driver=CountingDriver(), on_closed=tell) as pool:
        async with pool.connection(SERVER) as conn:
            await conn.session.set_many({f"key{n}": b"value %d" % n for n in range(100)})
            print(await conn.session.get("key99"), f"(connection {conn.id})")
        try:
            async with pool.connection(SERVER) as conn:
                await conn.session.incr("key99")
        except MemcacheError as refusal:
            print(f"{refusal} (connection {conn.id})")
        with trio.CancelScope() as scope:
            async with pool.connection(SERVER) as conn:
                print(f"giving up on connection {conn.id}")
                scope.cancel()
                await conn.session.get("key1")
        async with pool.connection(SERVER) as conn:
            print(await conn.session.get("key2"), f"(connection {conn.id})")


# end

if __name__ == "__main__":
    trio.run(main)

"""A driver that checks, resets and says goodbye."""

from __future__ import annotations

import trio
from memcache import SERVER
from memcache_clean import CountingMemcache

import conpool


# begin
class TenantMemcache(CountingMemcache):
    tenant = ""

    async def get(self, key: str) -> bytes | None:
        return await super().get(self.tenant + key)

    async def set(self, key: str, value: bytes) -> None:
        await super().set(self.tenant + key, value)


class TenantDriver(conpool.Driver[TenantMemcache]):
    async def open(self, stream: trio.abc.Stream, endpoint: conpool.AnyEndpoint) -> TenantMemcache:
        session = TenantMemcache(stream)
        print("open", (await session.ask(b"version\r\n", session.read_line)).split()[0])
        return session

    async def check(self, session: TenantMemcache) -> bool:
        print("check", (await session.ask(b"version\r\n", session.read_line)).split()[0])
        return True

    async def reset(self, session: TenantMemcache) -> None:
        print("reset")
        session.tenant = ""

    async def close(self, session: TenantMemcache) -> None:
        print("close")
        await session.stream.send_all(b"quit\r\n")

    def is_clean(self, session: TenantMemcache) -> bool:
        return session.owed == 0 and not session.unread


async def main() -> None:
    async with conpool.ConnectionPool(driver=TenantDriver()) as pool:
        await pool.warm(SERVER, 1)
        async with pool.connection(SERVER) as conn:
            conn.session.tenant = "one:"
            await conn.session.set("colour", b"red")
        async with pool.connection(SERVER) as conn:
            print("tenant", repr(conn.session.tenant))
            print("colour", await conn.session.get("one:colour"))


# end

if __name__ == "__main__":
    trio.run(main)

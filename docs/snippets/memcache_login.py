"""A driver that logs in with the credentials of the endpoint."""

from __future__ import annotations

import trio
from memcache import SERVER, set_request
from memcache_clean import CountingDriver, CountingMemcache

import conpool


# begin
class LoginDriver(CountingDriver):
    async def open(
        self, stream: trio.abc.Stream, endpoint: conpool.AnyEndpoint
    ) -> CountingMemcache:
        session = CountingMemcache(stream)
        login = endpoint.login or conpool.Login()
        credentials = f"{login.username} {login.password}".encode()
        await session.ask(set_request("login", credentials), session.read_line)
        return session


async def main() -> None:
    async with conpool.ConnectionPool(driver=LoginDriver(), name="cache") as pool:
        for password in ("secret", "guess"):
            login = conpool.Login("app", password)
            endpoint = conpool.Endpoint(SERVER.host, SERVER.port, login=login)
            try:
                async with pool.connection(endpoint) as conn:
                    await conn.session.set("greeting", b"hello")
                    print(f"{endpoint}: {await conn.session.get('greeting')!r}")
            except conpool.ConnectError as error:
                print(f"{type(error.__cause__).__name__} in phase {error.phase}: {error}")


# end

if __name__ == "__main__":
    trio.run(main)

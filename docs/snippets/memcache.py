"""A client for memcached: a session speaks the protocol, a driver opens it, a pool lends it."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

import conpool

Reply = TypeVar("Reply")

SERVER = conpool.Endpoint("127.0.0.1", int(os.environ.get("MEMCACHED_PORT", "11211")))


class MemcacheError(Exception):
    """The server refused a command, and its reply was read to the end."""


# begin session
class Memcache:
    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.unread = bytearray()

    async def get(self, key: str) -> bytes | None:
        return await self.ask(b"get %b\r\n" % encoded(key), self.read_value)

    async def set(self, key: str, value: bytes) -> None:
        await self.ask(set_request(key, value), self.read_line)

    async def incr(self, key: str) -> int:
        return int(await self.ask(b"incr %b 1\r\n" % encoded(key), self.read_line))

    async def ask(self, request: bytes, read_reply: Callable[[], Awaitable[Reply]]) -> Reply:
        await self.stream.send_all(request)
        return await read_reply()

    async def read_line(self) -> bytes:
        await self.receive_until(lambda: b"\r\n" in self.unread)
        line, _, self.unread = self.unread.partition(b"\r\n")
        if line.startswith((b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR")):
            raise MemcacheError(line.decode())
        return bytes(line)

    async def read_value(self) -> bytes | None:
        head = await self.read_line()  # "VALUE <key> <flags> <size>", or "END" if there is none
        if head == b"END":
            return None
        size = int(head.split()[3])
        await self.receive_until(lambda: len(self.unread) >= size + len(b"\r\nEND\r\n"))
        value = bytes(self.unread[:size])
        del self.unread[: size + len(b"\r\nEND\r\n")]
        return value

    async def receive_until(self, is_enough: Callable[[], bool]) -> None:
        while not is_enough():
            chunk = await self.stream.receive_some()
            if not chunk:
                raise trio.BrokenResourceError("memcached has hung up")
            self.unread += chunk


def set_request(key: str, value: bytes) -> bytes:
    return b"set %b 0 0 %d\r\n%b\r\n" % (encoded(key), len(value), value)


def encoded(key: str) -> bytes:
    if not re.fullmatch("[!-~]{1,250}", key):  # a space or a line break would be a command
        raise ValueError(f"{key!r} cannot be a key of memcached")
    return key.encode()


# end session


# begin driver
class MemcacheDriver(conpool.Driver[Memcache]):
    async def open(self, stream: trio.abc.Stream, endpoint: conpool.AnyEndpoint) -> Memcache:
        session = Memcache(stream)
        await session.ask(b"version\r\n", session.read_line)  # a server that is full refuses here
        return session


async def main() -> None:
    async with conpool.ConnectionPool(driver=MemcacheDriver()) as pool:
        async with pool.connection(SERVER) as conn:
            await conn.session.set("greeting", b"hello")
        async with pool.connection(SERVER) as conn:
            value = await conn.session.get("greeting")
            print(f"{value!r} (connection {conn.id}, use {conn.uses})")


# end driver

if __name__ == "__main__":
    trio.run(main)

"""A session for many callers at once, whose replies a companion task reads."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trio
from memcache import SERVER, Memcache, MemcacheError, Reply

import conpool


# begin
@dataclass
class Question:
    read_reply: Callable[[], Awaitable[Any]]
    reply: Any = None
    error: Exception | None = None
    answered: trio.Event = field(default_factory=trio.Event)


class SharedMemcache(Memcache):
    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__(stream)
        self.questions: deque[Question] = deque()  # the oldest is answered first
        self.outbox, self.requests = trio.open_memory_channel[bytes](math.inf)
        self.has_ended = False

    async def ask(self, request: bytes, read_reply: Callable[[], Awaitable[Reply]]) -> Reply:
        if self.has_ended:
            raise trio.BrokenResourceError("memcached has hung up")
        question = Question(read_reply)
        self.questions.append(question)
        self.outbox.send_nowait(request)
        await question.answered.wait()
        if question.error is not None:
            raise question.error
        reply: Reply = question.reply
        return reply

    async def serve(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.send_requests)
                nursery.start_soon(self.read_replies)
        finally:
            self.has_ended = True
            for question in self.questions:
                question.error = trio.BrokenResourceError("memcached has hung up")
                question.answered.set()

    async def send_requests(self) -> None:
        async for request in self.requests:
            await self.stream.send_all(request)

    async def read_replies(self) -> None:
        while True:
            await self.receive_until(lambda: bool(self.unread))
            question = self.questions[0]
            try:
                question.reply = await question.read_reply()
            except MemcacheError as refusal:
                question.error = refusal
            self.questions.popleft().answered.set()


class SharedDriver(conpool.Driver[SharedMemcache]):
    async def open(self, stream: trio.abc.Stream, endpoint: conpool.AnyEndpoint) -> SharedMemcache:
        await stream.send_all(b"version\r\n")  # not `ask`: `run` starts when `open` has returned
        session = SharedMemcache(stream)
        await session.read_line()
        return session

    async def run(self, session: SharedMemcache) -> None:
        await session.serve()

    def capacity(self, session: SharedMemcache) -> int:
        return 100


async def main() -> None:
    right: list[int] = []

    async def use(pool: conpool.ConnectionPool[SharedMemcache], number: int) -> None:
        with trio.CancelScope() as scope:
            async with pool.connection(SERVER) as conn:
                await conn.session.set(f"key{number}", b"%d" % number)
                if number % 10 == 0:
                    scope.cancel()  # the reply will come, and nobody waits for it
                if await conn.session.get(f"key{number}") == b"%d" % number:
                    right.append(number)

    async with conpool.ConnectionPool(driver=SharedDriver()) as pool:
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(use, pool, number)
        print(f"{len(right)} right replies, connections: {pool.stats(SERVER).total_created}")


# end

if __name__ == "__main__":
    trio.run(main)

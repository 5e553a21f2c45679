"""One pool for a whole program, which ends in order when it is told to."""

from __future__ import annotations

import signal

import trio
from shouting import shouting_server

import conpool


class Greeter:
    """A part of the program: it is given the pool, and makes none."""

    def __init__(self, pool: conpool.ConnectionPool, endpoint: conpool.Endpoint) -> None:
        self.pool = pool
        self.endpoint = endpoint

    async def greet(self, name: str) -> str:
        async with self.pool.connection(self.endpoint) as conn:
            await conn.send_all(f"hello {name}\n".encode())
            answer = b""
            while not answer.endswith(b"\n"):
                received = await conn.receive_some()
                if not received:
                    raise EOFError("the server hung up")
                answer += received
        return answer.decode().strip()


async def wait_for_the_end() -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            return


async def work(greeter: Greeter, is_over: trio.Event) -> None:
    number = 0
    while not is_over.is_set():  # what has begun is finished; nothing new begins
        number += 1
        print(await greeter.greet(f"caller {number}"))
        if number == 3:
            signal.raise_signal(signal.SIGTERM)  # somebody stops the program
            await is_over.wait()


async def main() -> None:
    is_over = trio.Event()
    async with shouting_server() as endpoint, conpool.ConnectionPool() as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work, Greeter(pool, endpoint), is_over)
            await wait_for_the_end()
            is_over.set()
        print("all work is done; the pool's block ends, and closes the connections")


if __name__ == "__main__":
    trio.run(main)

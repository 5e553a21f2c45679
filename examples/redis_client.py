"""A small Redis client: hiredis speaks the protocol, conpool lends the sessions.

    python examples/redis_client.py redis://127.0.0.1:6379/0
    python examples/redis_client.py rediss://user:password@redis.example/2 --shares 64

It works with Redis and Valkey, over TCP, TLS or a UNIX socket. There are two kinds of sessions:

- A `Session` serves one task at a time, and can do everything: commands, pipelines, transactions
  with WATCH, commands that block, and messages (publish and subscribe).
- A `SharedSession` serves many tasks at the same time, for commands that the server answers at
  once. The requests of all tasks go out together, so each costs less.

`RedisDriver` opens sessions of the first kind, `SharedRedisDriver` of the second kind. A program
that needs both has a pool of each.

A session counts the replies that it is owed, and so it knows whether the next caller can have it.
A command that changes the connection itself (WATCH without EXEC, MULTI, SUBSCRIBE, CLIENT) costs
the connection: the pool closes it when the lease ends. Another database is another endpoint.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import hiredis
import trio

import conpool

Command: TypeAlias = tuple[Any, ...]
"""A name and its arguments: `("SET", "key", 7)`."""

AnyPool: TypeAlias = "conpool.ConnectionPool[Session] | conpool.ConnectionPool[SharedSession]"

INCOMPLETE = object()

SUBSCRIBES = {"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"}
ALTERS = {
    *("AUTH", "CLIENT", "DISCARD", "EXEC", "HELLO", "MONITOR", "MULTI", "QUIT", "READONLY"),
    *("RESET", "SELECT", "SYNC", "PSYNC"),
}
"""After these the connection is no longer as `open` has left it."""
BLOCKS = {
    *("BLMOVE", "BLMPOP", "BLPOP", "BRPOP", "BRPOPLPUSH", "BZMPOP", "BZPOPMAX", "BZPOPMIN"),
    *("WAIT", "WAITAOF"),
}
RESP2_ONLY = ("ERR unknown command", "NOPROTO")
"""How servers refuse HELLO that can be talked to without it."""


class HungUp(trio.BrokenResourceError):
    """The server has closed the connection before its reply was complete."""


class Message(NamedTuple):
    """What somebody has published; `pattern` is the one that matched the channel, if any."""

    channel: bytes
    data: bytes
    pattern: bytes | None = None


class Session:
    """One connection: runs the commands of one task after the other."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.reader = hiredis.Reader(notEnoughData=INCOMPLETE)
        self.protocol = 2
        self.owed = 0  # replies that were asked for and not read
        self.has_watches = False
        self.is_altered = False
        self.messages: deque[Message] = deque()

    # ── commands ────────────────────────────────────────────────────────────────

    async def command(self, *command: Any) -> Any:
        """Run one command.

        Raises:
            hiredis.ReplyError: The server refused the command.
        """
        self.note(command)
        [reply] = await self.ask((command,))
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    async def pipeline(self, *commands: Command) -> list[Any]:
        """Run several commands in one round trip.

        Raises:
            hiredis.ReplyError: The server refused one of the commands. It has run the others.
        """
        for command in commands:
            self.note(command)
        return accepted(await self.ask(commands)) if commands else []

    async def transaction(self, *commands: Command) -> list[Any] | None:
        """Run all commands without anybody else's in between, or none of them.

        Returns:
            The replies; None if somebody has changed a key that was watched: nothing has run.

        Raises:
            hiredis.ReplyError: The server refused a command. If it did so before EXEC, nothing has
                run; otherwise the other commands have.
        """
        for command in commands:
            self.note(command)
        *queued, replies = await self.ask([("MULTI",), *commands, ("EXEC",)])
        self.has_watches = False
        accepted([*queued, replies])
        return replies if replies is None else accepted(replies)

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands; return all replies, refusals among them."""
        await self.send(commands)
        return [await self.receive_reply() for _ in commands]

    def note(self, command: Command) -> None:
        """Note what a command does to the connection.

        Raises:
            ValueError: The command has no reply of its own.
        """
        name = name_of(command)
        if name in SUBSCRIBES:
            raise ValueError(f"{name} has no reply: use subscribe()")
        if name in ALTERS:
            self.is_altered = True
        elif name in {"WATCH", "UNWATCH"}:
            self.has_watches = name == "WATCH"

    def is_clean(self) -> bool:
        """Whether the next caller can have the session."""
        as_opened = not self.is_altered and not self.has_watches
        return as_opened and self.owed == 0 and not self.reader.has_data()

    # ── messages ────────────────────────────────────────────────────────────────

    async def subscribe(self, *channels: str, patterns: Sequence[str] = ()) -> None:
        """Have the server send what is published. From now on the session does nothing else.

        Raises:
            hiredis.ReplyError: The server refused.
        """
        self.is_altered = True
        wishes = [("SUBSCRIBE", channel) for channel in channels]
        wishes += [("PSUBSCRIBE", pattern) for pattern in patterns]
        await self.stream.send_all(packed(wishes))
        while wishes:
            kind, *_ = event = await self.receive_event()
            if kind in {b"subscribe", b"psubscribe"}:
                wishes.pop()
            else:  # a channel is ahead of the next one's confirmation
                self.messages.extend(find_messages(event))

    async def receive_message(self) -> Message:
        """Wait for the next message. A cancellation loses none."""
        while not self.messages:
            self.messages.extend(find_messages(await self.receive_event()))
        return self.messages.popleft()

    async def receive_event(self) -> list[Any]:
        """Wait for what a server sends to a subscriber."""
        [event] = accepted([await self.receive()])
        return list(event)

    # ── the wire ────────────────────────────────────────────────────────────────

    async def send(self, commands: Sequence[Command]) -> None:
        # All requests go out before the first reply is read. Redis buffers what it has to say, so
        # neither side waits for the other.
        request = packed(commands)
        self.owed += len(commands)
        await self.stream.send_all(request)

    async def receive_reply(self) -> Any:
        """Wait for the next reply; pass over what the server tells unasked (RESP3)."""
        while isinstance(reply := await self.receive(), hiredis.PushNotification):
            pass
        self.owed -= 1
        return reply

    async def receive(self) -> Any:
        while (reply := self.reader.gets()) is INCOMPLETE:
            received = await self.stream.receive_some()
            if not received:
                raise HungUp("the server hung up in mid-reply")
            self.reader.feed(bytes(received))
        return reply

    async def log_in(self, login: conpool.Login) -> None:
        """Say who we are, choose RESP3 and the database, all in one round trip.

        Raises:
            hiredis.ReplyError: The server refused one of them.
        """
        commands: list[Command] = [("HELLO", 3)]
        if login.username is not None or login.password is not None:
            user = () if login.username is None else (login.username,)
            commands.insert(0, ("AUTH", *user, login.password or ""))
        if login.database not in {None, "0"}:
            commands.append(("SELECT", login.database))
        await self.send(commands)
        for command in commands:
            name, reply = name_of(command), await self.receive_reply()
            if not isinstance(reply, hiredis.ReplyError):
                self.protocol = 3 if name == "HELLO" else self.protocol
            elif name != "HELLO" or not str(reply).startswith(RESP2_ONLY):
                # A server that does not know a command repeats the arguments: the password.
                raise hiredis.ReplyError(str(reply).partition(", with args")[0])


def packed(commands: Iterable[Command]) -> bytes:
    return b"".join(map(hiredis.pack_command, commands))


def name_of(command: Command) -> str:
    name = command[0]
    return (name.decode() if isinstance(name, bytes) else str(name)).upper()


def accepted(replies: list[Any]) -> list[Any]:
    """Raise the first refusal."""
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            raise reply
    return replies


def find_messages(event: list[Any]) -> list[Message]:
    match event:
        case [b"message", channel, data]:
            return [Message(channel, data)]
        case [b"pmessage", pattern, channel, data]:
            return [Message(channel, data, pattern)]
    return []


# ── one session for many tasks ──────────────────────────────────────────────────


@dataclass(slots=True)
class Question:
    """What one task has asked and waits for."""

    size: int
    asked_at: float = field(default_factory=trio.current_time)
    replies: list[Any] = field(default_factory=list)
    is_over: trio.Event = field(default_factory=trio.Event)


class SharedSession(Session):
    """One connection: runs the commands of many tasks at the same time.

    A task puts its requests into the outbox in one step, and waits. The companion sends what is in
    the outbox and reads all replies. If a task is cancelled, its reply is read and dropped.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__(stream)
        self.outbox = bytearray()
        self.has_mail = trio.Event()
        self.questions: deque[Question] = deque()  # the oldest is answered first
        self.has_ended = False

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        if self.has_ended:
            raise HungUp("the server hung up")
        request = packed(commands)
        question = Question(len(commands))
        self.outbox += request
        self.questions.append(question)
        self.has_mail.set()
        await question.is_over.wait()
        if len(question.replies) < question.size:
            raise HungUp("the server hung up in mid-reply")
        return question.replies

    async def subscribe(self, *channels: str, patterns: Sequence[str] = ()) -> None:
        raise ValueError("SUBSCRIBE takes a session of its own")

    def note(self, command: Command) -> None:
        """Refuse a command that would make the others wait, or change their connection."""
        name = name_of(command)
        if name in ALTERS | BLOCKS | SUBSCRIBES | {"WATCH"} or may_block(name, command):
            raise ValueError(f"{name} takes a session of its own")

    def is_stuck(self, patience: float) -> bool:
        """Whether the oldest question has waited for longer than `patience` seconds."""
        asked_at = self.questions[0].asked_at if self.questions else trio.current_time()
        return trio.current_time() - asked_at > patience

    async def serve(self) -> None:
        """Send and read until the server hangs up."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.send_requests)
                await self.read_replies()
                nursery.cancel_scope.cancel()
        finally:
            self.has_ended = True
            for question in self.questions:
                question.is_over.set()

    async def send_requests(self) -> None:
        with suppress(trio.BrokenResourceError):  # the reader finds the end, too
            while True:
                await self.has_mail.wait()
                self.has_mail = trio.Event()
                request, self.outbox = self.outbox, bytearray()
                await self.stream.send_all(request)

    async def read_replies(self) -> None:
        with suppress(trio.BrokenResourceError):
            while True:
                reply = await self.receive()
                if isinstance(reply, hiredis.PushNotification):
                    continue
                question = self.questions[0]
                question.replies.append(reply)
                if len(question.replies) == question.size:
                    self.questions.popleft().is_over.set()


def may_block(name: str, command: Command) -> bool:
    is_read = name in {"XREAD", "XREADGROUP"}
    return is_read and any(str(word).upper() == "BLOCK" for word in command)


# ── the driver ──────────────────────────────────────────────────────────────────


class RedisDriver(conpool.Driver[Session]):
    """Logs in to Redis or Valkey, and asks for a sign of life."""

    async def open(self, stream: trio.abc.Stream, endpoint: conpool.AnyEndpoint) -> Session:
        session = Session(stream)
        await session.log_in(endpoint.login or conpool.Login())
        return session

    async def check(self, session: Session) -> bool:
        return bool(await session.command("PING") == b"PONG")

    def is_clean(self, session: Session) -> bool:
        return session.is_clean()


class SharedRedisDriver(conpool.Driver[SharedSession]):
    """Lets `shares` leases use a connection, unless its server keeps one waiting for `patience`."""

    def __init__(self, shares: int = 64, *, patience: float = 5.0) -> None:
        self.shares = shares
        self.patience = patience

    async def open(self, stream: trio.abc.Stream, endpoint: conpool.AnyEndpoint) -> SharedSession:
        session = SharedSession(stream)
        await session.log_in(endpoint.login or conpool.Login())
        return session

    async def run(self, session: SharedSession) -> None:
        await session.serve()

    async def check(self, session: SharedSession) -> bool:
        return bool(await session.command("PING") == b"PONG")

    def capacity(self, session: SharedSession) -> int:
        return 0 if session.is_stuck(self.patience) else self.shares


CONFIG = conpool.PoolConfig(health_check_after=5.0, health_check_timeout=1.0)
"""A session that was idle for five seconds must answer PING before it is lent."""


def open_pool(config: conpool.PoolConfig = CONFIG) -> conpool.ConnectionPool[Session]:
    """Make a pool whose sessions serve one task at a time."""
    return conpool.ConnectionPool(config, driver=RedisDriver(), name="redis")


def open_shared_pool(
    config: conpool.PoolConfig = CONFIG, *, shares: int = 64
) -> conpool.ConnectionPool[SharedSession]:
    """Make a pool whose sessions serve many tasks at a time."""
    return conpool.ConnectionPool(config, driver=SharedRedisDriver(shares), name="redis, shared")


async def execute(pool: AnyPool, endpoint: conpool.AnyEndpoint, *command: Any) -> Any:
    """Run one command on any session. A refusal costs no connection."""
    async with pool.connection(endpoint) as conn:
        return await conn.session.command(*command)


async def update(
    pool: conpool.ConnectionPool[Session],
    endpoint: conpool.AnyEndpoint,
    key: str,
    change: Callable[[bytes | None], Any],
) -> Any:
    """Set `key` to what `change` makes of its value; start again if somebody was faster."""
    async with pool.connection(endpoint) as conn:
        while True:
            await conn.session.command("WATCH", key)
            value = change(await conn.session.command("GET", key))
            if await conn.session.transaction(("SET", key, value)) is not None:
                return value


@asynccontextmanager
async def subscribed(
    pool: conpool.ConnectionPool[Session],
    endpoint: conpool.AnyEndpoint,
    *channels: str,
    patterns: Sequence[str] = (),
) -> AsyncIterator[Session]:
    """Lend a session that receives messages; its connection serves nobody else afterwards."""
    async with pool.connection(endpoint) as conn:
        conn.retire()
        await conn.session.subscribe(*channels, patterns=patterns)
        yield conn.session


async def main(url: str, *, tasks: int = 50, rounds: int = 20, shares: int = 0) -> int:
    """Let many tasks count together on the server; return the total."""
    endpoint = conpool.Endpoint.from_url(url)

    made: AnyPool = open_shared_pool(shares=shares) if shares else open_pool()
    async with made as pool:

        async def count() -> None:
            for _ in range(rounds):
                await execute(pool, endpoint, "INCR", "conpool:example")

        await execute(pool, endpoint, "SET", "conpool:example", 0, "EX", 60)
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(count)
        total = int(await execute(pool, endpoint, "GET", "conpool:example"))
        print(f"{tasks} tasks counted to {total:,}")
        print(pool.all_stats())
        return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("url")
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--shares", type=int, default=0, help="tasks on one connection")
    a = parser.parse_args()
    trio.run(lambda: main(a.url, tasks=a.tasks, rounds=a.rounds, shares=a.shares))

"""A toy protocol for tests, lines that are echoed after a greeting, and drivers that speak it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import trio

from conpool import AnyEndpoint, Driver, Endpoint, NativeDriver

GREETING: Final = b"hello\n"


async def greet_and_echo(stream: trio.abc.Stream) -> None:
    """Greet, then answer each line with itself."""
    await stream.send_all(GREETING)
    async for data in stream:
        await stream.send_all(data)


class Session:
    """One logged-in connection: `call` sends a line and returns the answer."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.owes = 0
        self.selected = "nothing"
        self.inbox: list[bytes] = []
        self.arrived = trio.Event()
        self.hung_up = trio.Event()
        """Ends the companion, if it has one."""

    async def call(self, line: bytes) -> bytes:
        self.owes += 1
        await self.stream.send_all(line + b"\n")
        return await self.answer()

    async def answer(self) -> bytes:
        answer = b""
        while not answer.endswith(b"\n"):
            part = await self.stream.receive_some()
            if not part:
                raise EOFError("the server has gone")
            answer += part
        self.owes -= 1
        return answer[:-1]


class Plain(Driver[Session]):
    """Overrides `open` and nothing else, and keeps a record of what it was asked to do."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def open(self, stream: trio.abc.Stream, endpoint: AnyEndpoint) -> Session:
        session = Session(stream)
        session.owes = 1
        answer = await session.answer()
        if answer != b"hello":
            raise ConnectionRefusedError(answer.decode())
        self.log.append("open")
        return session


class Full(Plain):
    """Overrides all that concerns one lease after the other."""

    async def check(self, session: Session) -> bool:
        self.log.append("check")
        return await session.call(b"check") == b"check"

    async def reset(self, session: Session) -> None:
        self.log.append("reset")
        await session.call(b"reset")
        session.selected = "nothing"

    async def close(self, session: Session) -> None:
        self.log.append("close")
        await session.call(b"bye")

    async def cancel(self, session: Session) -> None:
        self.log.append("cancel")
        await trio.lowlevel.checkpoint()

    def is_clean(self, session: Session) -> bool:
        return not session.owes


def make_driver(**methods: Any) -> Plain:
    """Make a driver that overrides `open` and also `methods`, which take the session only."""
    own = {name: _method(method) for name, method in methods.items()}
    made: Plain = type("Made", (Plain,), own)()
    return made


def _method(method: Any) -> Any:
    def call(self: Plain, session: Session) -> Any:
        self.log.append(method.__name__)
        return method(session)

    return call


class Mux:
    """A connection that many calls share: each answer carries the number of its call."""

    def __init__(self, stream: trio.abc.Stream, room: int) -> None:
        self.stream = stream
        self.room = room
        self.waiting: dict[bytes, trio.Event] = {}
        self.answers: dict[bytes, bytes] = {}
        self.lock = trio.Lock()
        self.count = 0
        self.ended = False

    async def call(self, line: bytes) -> bytes:
        self.count += 1
        number = b"%d" % self.count
        event = self.waiting[number] = trio.Event()
        async with self.lock:
            await self.stream.send_all(number + b" " + line + b"\n")
        await event.wait()
        if self.ended:
            raise trio.BrokenResourceError
        return self.answers.pop(number)


class MuxDriver(Driver[Mux]):
    """Lends one connection to `room` leases at once."""

    def __init__(self, room: int = 2) -> None:
        self.room = room
        self.sessions: list[Mux] = []

    async def open(self, stream: trio.abc.Stream, endpoint: AnyEndpoint) -> Mux:
        assert await stream.receive_some() == GREETING
        session = Mux(stream, self.room)
        self.sessions.append(session)
        return session

    async def run(self, session: Mux) -> None:
        rest = b""
        try:
            while part := await session.stream.receive_some():
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    if line == b"goaway":
                        session.room = 0
                        continue
                    number, _, answer = line.partition(b" ")
                    session.answers[number] = answer
                    session.waiting.pop(number).set()
        finally:
            session.ended = True
            for event in session.waiting.values():
                event.set()

    def capacity(self, session: Mux) -> int:
        return session.room


# ── sessions that own their socket ──────────────────────────────────────────────


class NativeSession:
    """Speaks the toy protocol over a socket of its own, as a library in C would."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.owes = 0

    @classmethod
    async def connect(cls, endpoint: Endpoint) -> NativeSession:
        session = cls(socket.socket())
        try:
            session.socket.setblocking(False)
            session.socket.connect_ex((endpoint.host, endpoint.port))
            await trio.lowlevel.wait_writable(session.socket)
            session.owes = 1
            greeting = await session.answer()
            if greeting != b"hello":
                raise ConnectionRefusedError(greeting.decode())
        except BaseException:
            session.socket.close()
            raise
        return session

    async def call(self, line: bytes) -> bytes:
        self.owes += 1
        self.socket.sendall(line + b"\n")  # a short line on a fresh socket: it never blocks
        return await self.answer()

    async def answer(self) -> bytes:
        answer = b""
        while not answer.endswith(b"\n"):
            await trio.lowlevel.wait_readable(self.socket)
            part = self.socket.recv(4096)
            if not part:
                raise EOFError("the server has gone")
            answer += part
        self.owes -= 1
        return answer[:-1]


class Native(NativeDriver[NativeSession]):
    """Overrides what it must, and keeps a record of what it was asked to do."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.sessions: list[NativeSession] = []

    async def connect(self, endpoint: AnyEndpoint) -> NativeSession:
        session = await NativeSession.connect(cast("Endpoint", endpoint))
        self.sessions.append(session)
        return session

    def fileno(self, session: NativeSession) -> int:
        return session.socket.fileno()

    def is_clean(self, session: NativeSession) -> bool:
        return not session.owes

    def abort(self, session: NativeSession) -> None:
        self.log.append("abort")
        session.socket.close()


class PoliteNative(Native):
    """Says goodbye, too."""

    async def close(self, session: NativeSession) -> None:
        self.log.append("close")
        await session.call(b"bye")
        session.socket.close()


class Whole(Full):
    """Overrides everything but `capacity`, and notes what overlaps on one session."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.companions = 0
        self._busy: dict[Session, str] = {}

    @contextmanager
    def _alone(self, what: str, session: Session) -> Iterator[None]:
        """Nothing else of the driver may run on `session` meanwhile."""
        if session in self._busy:
            self.faults.append(f"{what} began amid {self._busy[session]}")
        self._busy[session] = what
        try:
            yield
        finally:
            self._busy.pop(session, None)

    async def run(self, session: Session) -> None:
        self.companions += 1
        try:
            await session.hung_up.wait()
        finally:
            self.companions -= 1
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def check(self, session: Session) -> bool:
        with self._alone("check", session):
            return await super().check(session)

    async def reset(self, session: Session) -> None:
        with self._alone("reset", session):
            await super().reset(session)

    async def close(self, session: Session) -> None:
        with self._alone("close", session):
            await super().close(session)

    async def cancel(self, session: Session) -> None:
        with self._alone("cancel", session):
            self.log.append("cancel")
            await trio.sleep(0.125)

"""What a case may ask of any pool."""

from __future__ import annotations

import abc
from typing import ClassVar, Literal

from .runtime import Runtime
from .sockets import count_sockets


class DoesNotApplyError(Exception):
    """This pool has no such feature, so the case does not apply to it."""


class Rival(abc.ABC):
    """One pool under test, with its server, which answers a number with the same number."""

    label: ClassVar[str]
    package: ClassVar[str]
    library: ClassVar[Literal["trio", "asyncio"]]

    port: int
    """The server's."""
    runtime: Runtime

    @abc.abstractmethod
    async def open(self, limit: int) -> None:
        """Open a pool of at most `limit` connections; none is dialled yet."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Close it. It may be closed already."""

    async def leave(self) -> None:
        """Close it for good, in the task that opened it."""
        await self.close()

    @abc.abstractmethod
    async def ask(self, number: int) -> int:
        """Borrow a connection, have a number sent back over it, and return the connection."""

    @abc.abstractmethod
    async def hold(self) -> None:
        """Borrow a connection and keep it until `let_go`."""

    @property
    @abc.abstractmethod
    def is_held(self) -> bool:
        """Whether some task is inside `hold`, with a connection."""

    @abc.abstractmethod
    def let_go(self) -> None:
        """Let all tasks leave `hold`."""

    @abc.abstractmethod
    async def ask_and_lose_patience(self) -> None:
        """Borrow a connection, start an exchange, swallow its time-out, leave the block calmly."""

    async def ask_host(self, host: int) -> int:
        """As `ask`, for one of many hosts."""
        raise DoesNotApplyError

    async def ask_silent(self) -> None:
        """Dial a server that accepts and then says nothing."""
        raise DoesNotApplyError

    @property
    def silent_port(self) -> int:
        """That server's port."""
        raise DoesNotApplyError

    @abc.abstractmethod
    async def receive_unasked(self) -> None:
        """Have the server send something over the idle connection."""

    def count_sockets(self) -> int:
        """Count the sockets that are open towards the server."""
        return count_sockets(self.port)

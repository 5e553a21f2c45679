"""What must come to its end at the server although the scope around it has been cancelled."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self, final

import psycopg
import trio
from psycopg.rows import Row


@final
class Transaction(psycopg.AsyncTransaction):
    """psycopg's own; what undoes it is shielded, and has the connection's `cancel_timeout`.

    psycopg counts on it that a task is cancelled once. trio cancels all that follows, too.
    """

    async def __aenter__(self) -> Self:
        try:
            return await super().__aenter__()
        except trio.Cancelled as cancelled:
            await self._undo(cancelled)  # noqa: ASYNC102 - shields and bounds itself
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool:
        if exc_val is not None:
            return await self._undo(exc_val)  # noqa: ASYNC102 - shields and bounds itself
        try:
            return await super().__aexit__(None, None, None)  # noqa: ASYNC102 - undone below
        except trio.Cancelled as cancelled:
            await self._undo(cancelled)  # noqa: ASYNC102 - shields and bounds itself
            raise

    async def _undo(self, why: BaseException) -> bool:
        """Roll back, unless that has been done, or a COMMIT was under way."""
        if self.status is not self.Status.ACTIVE:
            return False
        with _time_to_end(self.connection):
            return await super().__aexit__(type(why), why, why.__traceback__)
        return False


@final
class AsyncServerCursor(psycopg.AsyncServerCursor[Row]):
    """psycopg's own, whose end is shielded, too: otherwise the server would keep it."""

    __module__ = "psycopg"
    __slots__ = ()

    async def close(self) -> None:
        """Close the cursor at the server, within the connection's `cancel_timeout`."""
        with _time_to_end(self.connection):
            await super().close()


def _time_to_end(connection: psycopg.AsyncConnection[Any]) -> trio.CancelScope:
    seconds: float = getattr(connection, "cancel_timeout", 0.0)
    return trio.CancelScope(shield=True, deadline=trio.current_time() + seconds)

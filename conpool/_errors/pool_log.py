"""The log of a pool: in each record stand the pool and, where there is one, the endpoint.

Levels say who must act:

- ERROR: this program has a bug, in an observer, a driver or a stream of its own, or in the pool.
- WARNING: somebody should look at this program or at its servers, and no caller was told of it.
- INFO: a peer or the network behaved badly; the pool goes on without it.

The texts of exceptions are shown, as in errors: their authors must keep secrets out of them.
"""

from __future__ import annotations

import logging
from typing import Final, cast, final

import trio

from conpool._values.group import Target

LOGGER: Final = logging.getLogger("conpool")

_OF_PEERS: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)
"""What peers and networks make happen to code that is in order."""


@final
class PoolLog:
    """Writes to the logger `conpool` about one pool, or about one of its endpoints.

    Each record has the attributes `pool` and `endpoint`: a name, and the endpoint as text, or None.
    """

    __slots__ = ("endpoint", "pool")

    def __init__(self, pool: str | None = None, endpoint: Target | None = None) -> None:
        self.pool = pool
        self.endpoint = endpoint

    def about(self, endpoint: Target) -> PoolLog:
        """Return the log for what happens to `endpoint`."""
        return PoolLog(self.pool, endpoint)

    def write(
        self, level: int, message: str, *args: object, error: BaseException | None = None
    ) -> None:
        """Write a record, with the traceback of `error` if there is one."""
        if not LOGGER.isEnabledFor(level):
            return
        endpoint = None if self.endpoint is None else str(self.endpoint)
        if self.pool is not None:
            message, args = f"pool %s: {message}", (self.pool, *args)
        LOGGER.log(
            level,
            message,
            *args,
            exc_info=error,
            extra={"pool": self.pool, "endpoint": endpoint},
            stacklevel=3,  # of the caller's caller, which has one of the methods below
        )

    def failed(self, message: str, *args: object, error: BaseException | None) -> None:
        """Say that something is wrong with this program."""
        self.write(logging.ERROR, message, *args, error=error)

    def warning(self, message: str, *args: object) -> None:
        """Say what somebody should look at."""
        self.write(logging.WARNING, message, *args)

    def note(self, message: str, *args: object, error: BaseException | None = None) -> None:
        """Say what the pool has got over by itself."""
        self.write(logging.INFO, message, *args, error=error)

    def gone_wrong(self, message: str, *args: object, error: Exception) -> None:
        """Say that code of the user's own has raised `error`, which may be its peer's doing."""
        level = logging.INFO if _is_of_peers(error) else logging.WARNING
        self.write(level, message, *args, error=error)


NO_LOG: Final = PoolLog()
"""For what belongs to no pool."""


def _is_of_peers(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        _, others = cast("BaseExceptionGroup[BaseException]", error).split(_OF_PEERS)
        return others is None
    return isinstance(error, _OF_PEERS)

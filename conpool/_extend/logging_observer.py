"""An observer that writes each event to the log."""

from __future__ import annotations

import logging
from typing import Final

from conpool._extend.observer import ConnectionInfo, Observer
from conpool._values.endpoint import AnyEndpoint
from conpool._values.states import CircuitState, CloseReason
from conpool._values.validation import valid_instance

_LOGGER: Final = logging.getLogger("conpool.events")


class LoggingObserver(Observer):
    """Writes a record for each event; override a method to leave its event out.

    The pool itself logs only what somebody should know. This is for those who want to see all that
    it does. Each record has the attributes `pool` and `endpoint`, and nothing secret.

        pool = ConnectionPool(observers=[LoggingObserver("orders")], name="orders")

    Args:
        pool: The name to show for the pool.
        logger: Where to write; by default the logger `conpool.events`.
        level: Level of the records.

    Raises:
        ConfigError: `pool` is not a str, or `logger` is not a logger.
    """

    def __init__(
        self,
        pool: str | None = None,
        *,
        logger: logging.Logger = _LOGGER,
        level: int = logging.DEBUG,
    ) -> None:
        self._pool = pool if pool is None else valid_instance("pool", pool, str)
        self._logger = valid_instance("logger", logger, logging.Logger)
        self._level = level

    def _write(self, endpoint: AnyEndpoint, event: str, *args: object) -> None:
        if not self._logger.isEnabledFor(self._level):
            return
        where = str(endpoint)
        message, args = f"%s: {event}", (where, *args)
        if self._pool is not None:
            message, args = f"pool %s, {message}", (self._pool, *args)
        extra = {"pool": self._pool, "endpoint": where}
        self._logger.log(self._level, message, *args, extra=extra, stacklevel=2)

    def acquire_started(self, endpoint: AnyEndpoint) -> None:
        """A task asks for a connection to `endpoint`."""
        self._write(endpoint, "asked for")

    def acquired(self, info: ConnectionInfo, waited: float) -> None:
        """A lease has begun after `waited` seconds."""
        message = "connection %d lent after %.6f s, use %d"
        self._write(info.endpoint, message, info.id, waited, info.uses)

    def acquire_failed(self, endpoint: AnyEndpoint, error: BaseException, waited: float) -> None:
        """An acquire ended in `error` after `waited` seconds."""
        self._write(endpoint, "got nothing in %.6f s: %s", waited, type(error).__qualname__)

    def released(self, info: ConnectionInfo, held: float) -> None:
        """A lease has ended after `held` seconds."""
        self._write(info.endpoint, "connection %d given back after %.6f s", info.id, held)

    def connecting(self, info: ConnectionInfo) -> None:
        """A dial has begun."""
        self._write(info.endpoint, "connection %d dialled", info.id)

    def connected(self, info: ConnectionInfo, took: float) -> None:
        """A dial has succeeded after `took` seconds."""
        self._write(info.endpoint, "connection %d open after %.6f s", info.id, took)

    def connect_failed(self, info: ConnectionInfo, error: BaseException, took: float) -> None:
        """A dial has ended in `error` after `took` seconds."""
        message = "connection %d failed after %.6f s: %s"
        self._write(info.endpoint, message, info.id, took, error)

    def closed(self, info: ConnectionInfo, reason: CloseReason) -> None:
        """The pool has closed a connection for `reason`."""
        message = "connection %d closed: %s, %d uses"
        self._write(info.endpoint, message, info.id, reason.value, info.uses)

    def cleared(self, endpoint: AnyEndpoint) -> None:
        """The pool will not lend again any connection to `endpoint` that exists now."""
        self._write(endpoint, "cleared")

    def circuit_changed(self, endpoint: AnyEndpoint, old: CircuitState, new: CircuitState) -> None:
        """The circuit of `endpoint` has gone from `old` to `new`."""
        self._write(endpoint, "circuit %s, was %s", new.value, old.value)

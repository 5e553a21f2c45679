"""What a pool must do for its sessions: which of its methods a driver overrides.

A method that is not overridden costs nothing: the pool does not call it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from operator import index
from typing import Any, Final, cast, final

import trio

from conpool._connection.exchange import SHARED
from conpool._errors.pool_log import NO_LOG, PoolLog
from conpool._extend.driver import Driver, NativeDriver
from conpool._values.config_error import ConfigError


@final
class SessionRules:
    """How the sessions of one pool are opened, kept and ended; without a driver there are none."""

    __slots__ = (
        "cancels",
        "checks",
        "driver",
        "is_native",
        "judges",
        "log",
        "opens",
        "pool",
        "resets",
        "runs",
        "says_goodbye",
        "shares",
    )

    def __init__(self, driver: Driver[Any] | None = None, log: PoolLog = NO_LOG) -> None:
        """Look at `driver`.

        Raises:
            ConfigError: It lacks a method without which no pool could work.
        """
        self.driver = driver
        self.log = log
        self.pool: Callable[[], object] = _no_pool
        """Returns the pool, as long as there is one."""
        self.is_native = isinstance(driver, NativeDriver)
        needed = ("connect", "fileno", "is_clean", "abort") if self.is_native else ("open",)
        for name in needed if driver is not None else ():
            if not self._overrides(name):
                raise ConfigError(f"{type(driver).__qualname__} must override {name}()")
        for name in ("is_clean", "needs_reset", "capacity", "fileno", "abort"):
            if inspect.iscoroutinefunction(getattr(driver, name, None)):  # nobody would await it
                raise ConfigError(f"{type(driver).__qualname__}.{name}() must not be async")
        self.opens = driver is not None and not self.is_native
        self.checks = self._overrides("check")
        """Whether a connection is checked by the driver before it is lent."""
        self.resets = self._overrides("reset")
        self.says_goodbye = self._overrides("close")
        self.cancels = self._overrides("cancel")
        self.runs = self._overrides("run")
        self.judges = self._overrides("is_clean")
        """Whether the driver decides if an exchange is complete, and not the bytes that moved."""
        self.shares = self._overrides("capacity")

    def _overrides(self, name: str) -> bool:
        base = NativeDriver if self.is_native else Driver
        mine = getattr(type(self.driver), name, None)
        return self.driver is not None and mine is not getattr(base, name)

    def is_clean(self, session: Any, log: PoolLog = NO_LOG) -> bool:
        """Return what the driver says; false if it raises."""
        try:
            return bool(cast("Driver[Any]", self.driver).is_clean(session))
        except Exception as error:  # noqa: BLE001 - a driver of the user's own may raise anything
            log.failed("%s.is_clean() raised", type(self.driver).__qualname__, error=error)
            return False

    def capacity(self, session: Any, log: PoolLog = NO_LOG) -> int:
        """Return how many leases may share the connection; 0 if the driver cannot say."""
        try:
            return int(cast("Driver[Any]", self.driver).capacity(session))
        except Exception as error:  # noqa: BLE001 - a driver of the user's own may raise anything
            log.failed("%s.capacity() raised", type(self.driver).__qualname__, error=error)
            return 0

    def has_companion(self, session: Any, log: PoolLog = NO_LOG) -> bool:
        """Return whether `run` is needed beside this session; true if the driver cannot say."""
        if not self.runs:
            return False
        try:
            return bool(cast("Driver[Any]", self.driver).has_companion(session))
        except Exception as error:  # noqa: BLE001 - a driver of the user's own may raise anything
            log.failed("%s.has_companion() raised", type(self.driver).__qualname__, error=error)
            return True

    def needs_reset(self, session: Any, log: PoolLog = NO_LOG) -> bool:
        """Return whether `reset` has anything to do; true if the driver cannot say."""
        try:
            return bool(cast("Driver[Any]", self.driver).needs_reset(session))
        except Exception as error:  # noqa: BLE001 - a driver of the user's own may raise anything
            log.failed("%s.needs_reset() raised", type(self.driver).__qualname__, error=error)
            return True

    def __repr__(self) -> str:
        return f"<SessionRules of {self.driver!r}>"


def _no_pool() -> None:
    """Stand in for a pool where there is none."""


NO_SESSIONS: Final = SessionRules()


class RefusingStream(trio.abc.HalfCloseableStream):
    """What a lease gets for a stream where only its session may move bytes."""

    __slots__ = ()

    taints: Final = SHARED
    """The end of a lease must look at the connection's own stream."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise _refused()

    async def wait_send_all_might_not_block(self) -> None:
        raise _refused()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise _refused()

    async def send_eof(self) -> None:
        raise _refused()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@final
class NativeStream(RefusingStream):
    """Stands in for the bytes of a connection whose session has a socket of its own."""

    __slots__ = ("_driver", "_is_free", "_session")

    def __init__(self, driver: NativeDriver[Any], session: Any) -> None:
        self._driver = driver
        self._session = session
        self._is_free = False
        """Whether the descriptor has been freed: to do it again may hit a stranger's."""

    def fileno(self) -> int:
        """Return the descriptor of the session; -1 if there is none."""
        return index(self._driver.fileno(self._session))

    def note_goodbye(self) -> None:
        """The driver's `close` has succeeded, and may have freed the descriptor."""
        self._is_free = self._find_descriptor() < 0

    def close(self) -> None:
        """Free the descriptor, unless that has been done."""
        if self._is_free:
            return
        descriptor = self._find_descriptor()
        if descriptor >= 0:
            # A task that waits for a descriptor would never hear that it is closed.
            trio.lowlevel.notify_closing(descriptor)
        self._driver.abort(self._session)
        self._is_free = True

    def _find_descriptor(self) -> int:
        with suppress(Exception):  # a library may raise if the session has ended
            return self.fileno()
        return -1

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


def _refused() -> RuntimeError:
    return RuntimeError(
        "only conn.session may move bytes here: its library has the socket, or others share it"
    )


REFUSING: Final = RefusingStream()

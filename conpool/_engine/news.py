"""Tells observers what has happened, once the books are right again.

An observer is a guest: the pool logs what it raises and goes on. An event that nobody watches costs
the pool the test of an empty tuple.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeAlias, cast, final

from conpool._connection.pooled import PooledEntry
from conpool._errors.pool_log import NO_LOG, PoolLog
from conpool._extend.observer import ConnectionInfo, Observer
from conpool._values.config_error import ConfigError
from conpool._values.endpoint import AnyEndpoint
from conpool._values.states import CloseReason

P = ParamSpec("P")

Watchers: TypeAlias = tuple[Callable[..., object], ...]
OnInfo: TypeAlias = Callable[[ConnectionInfo], object]
OnClosed: TypeAlias = Callable[[ConnectionInfo, CloseReason], object]


@final
class News:
    """What has happened, and who wants to hear it.

    For each event an attribute holds the calls that somebody wants to get. `add` notes an event for
    them; `deliver` makes the calls, once the books are right again:

        news.add(news.acquired, info, waited)

    `reused` is no observer's event: it feeds the pool's `on_reused`.
    """

    closed: tuple[OnClosed, ...]
    connected: tuple[Callable[[ConnectionInfo, float], object], ...]
    reused: tuple[OnInfo, ...]

    def __init__(
        self,
        observers: Iterable[Observer] = (),
        *,
        on_created: OnInfo | None = None,
        on_reused: OnInfo | None = None,
        on_closed: OnClosed | None = None,
    ) -> None:
        """Sort the watchers by event; of one event the callback comes before the observers.

        Raises:
            ConfigError: An observer is not an `Observer`; or a callback or an observer's method
                cannot be called, or is asynchronous and so would never run.
        """
        self._guests = guests = _check_observers(observers)
        created = _check_callback("on_created", on_created)
        closed = _check_callback("on_closed", on_closed)
        self.reused = _check_callback("on_reused", on_reused)
        self.acquire_started = _watching(guests, Observer.acquire_started)
        self.acquired = _watching(guests, Observer.acquired)
        self.acquire_failed = _watching(guests, Observer.acquire_failed)
        self.released = _watching(guests, Observer.released)
        self.connecting = _watching(guests, Observer.connecting)
        self.connected = (
            *map(_without_duration, created),
            *_watching(guests, Observer.connected),
        )
        self.connect_failed = _watching(guests, Observer.connect_failed)
        self.closed = (*closed, *_watching(guests, Observer.closed))
        self.cleared = _watching(guests, Observer.cleared)
        self.circuit_changed = _watching(guests, Observer.circuit_changed)
        self.watches_leases: bool = bool(
            self.acquire_started or self.acquired or self.reused or self.released
        )
        """Whether somebody wants to hear of each lease."""
        self.pending: deque[tuple[Watchers, tuple[object, ...]]] = deque()
        self.log = NO_LOG
        """Where stands what they raise."""
        self.is_held = False
        """Whether `deliver` is at work, or must wait."""

    def join(self, pool: object) -> None:
        """Let the observers know whose news this is."""
        for guest in self._guests:
            guest._joined(pool)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - our own

    def add(self, watchers: Watchers, *args: object) -> None:
        """Note an event for `watchers`."""
        if watchers:
            self.pending.append((watchers, args))

    def add_about(self, watchers: Watchers, entry: PooledEntry, *details: object) -> None:
        """Note an event of a connection for `watchers`."""
        if watchers:
            self.pending.append((watchers, (describe(entry), *details)))

    def deliver(self) -> None:
        """Tell the watchers what has happened, in order.

        They may call the pool, which may make more news. The call that is delivering tells that as
        well, after everything that came before.
        """
        if self.is_held:
            return
        self.is_held = True
        try:
            while self.pending:
                watchers, args = self.pending.popleft()
                tell(self.log, watchers, *args)
        except BaseException:
            self.is_held = False
            self.deliver()  # the rest is told all the same
            raise
        finally:
            self.is_held = False


def describe(entry: PooledEntry) -> ConnectionInfo:
    """Return what observers may know of `entry`."""
    return ConnectionInfo(entry.id, entry.sub.endpoint, entry.created_at, entry.uses)


def tell(
    log: PoolLog, watchers: tuple[Callable[P, object], ...], *args: P.args, **kwargs: P.kwargs
) -> None:
    """Call each of `watchers`; log whatever `Exception` one raises, and go on with the next.

    Other exceptions (`KeyboardInterrupt`) are not theirs to raise, and are let through.
    """
    for number, watcher in enumerate(watchers, 1):
        try:
            watcher(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - a guest may raise anything
            about: object = args[0] if args else "nothing"
            endpoint = about.endpoint if isinstance(about, ConnectionInfo) else about
            log = log if endpoint == "nothing" else log.about(cast("AnyEndpoint", endpoint))
            log.failed("%s raised when it was told about %s", _name(watcher), endpoint, error=error)
        except BaseException:
            tell(log, watchers[number:], *args, **kwargs)  # the others hear of it all the same
            raise


def _watching(
    observers: Iterable[Observer], method: Callable[Concatenate[Any, P], None]
) -> tuple[Callable[P, object], ...]:
    """The bound methods of those observers that do not leave `method` as it is."""
    name = method.__name__
    bound = ((observer, getattr(observer, name)) for observer in observers)
    return tuple(
        _check_synchronous(f"{type(observer).__qualname__}.{name}", call)
        for observer, call in bound
        if getattr(call, "__func__", None) is not method
    )


def _without_duration(callback: OnInfo) -> Callable[[ConnectionInfo, float], object]:
    @wraps(callback)
    def created(info: ConnectionInfo, _took: float) -> object:
        return callback(info)

    return created


def _check_observers(observers: object) -> tuple[Observer, ...]:
    if not isinstance(observers, Iterable):
        raise ConfigError(f"observers must be an iterable, not {_name(observers)}")
    guests: list[Observer] = []
    for guest in cast("Iterable[object]", observers):
        if not isinstance(guest, Observer):
            raise ConfigError(f"each of observers must be an Observer, not {_name(guest)}")
        guests.append(guest)
    return tuple(guests)


def _check_callback(
    name: str, callback: Callable[P, object] | None
) -> tuple[Callable[P, object], ...]:
    return () if callback is None else (_check_synchronous(name, callback),)


def _check_synchronous(name: str, call: Callable[P, object]) -> Callable[P, object]:
    if not callable(call):
        raise ConfigError(f"{name} must be a function, not {_name(call)}")
    if _is_asynchronous(call) or _is_asynchronous(type(call).__call__):
        raise ConfigError(f"{name} must be a plain function: it is called where nothing can await")
    return call


def _is_asynchronous(call: object) -> bool:
    return inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)


def _name(call: object) -> str:
    return getattr(call, "__qualname__", type(call).__qualname__)

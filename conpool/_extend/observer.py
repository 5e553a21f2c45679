"""What observers see, and how they are told.

An observer is a guest: what it raises is logged and goes no further, and an event that nobody
watches costs the pool the test of an empty tuple.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias, cast, final

from conpool._values.config_error import ConfigError
from conpool._values.endpoint import AnyEndpoint
from conpool._values.states import CircuitState, CloseReason

P = ParamSpec("P")

_logger: Final = logging.getLogger("conpool")


@final
@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """What callbacks and observers learn about a connection; never its bytes.

    Attributes:
        id: Its number in this pool, higher than those of all that were dialled before it.
        endpoint: The peer.
        created_at: When it was opened, in seconds on trio's clock; until then, when its dial
            began.
        uses: How many leases have begun on it.
    """

    id: int
    endpoint: AnyEndpoint
    created_at: float
    uses: int


class Observer:
    """Override what you want to see. What it raises is logged and goes no further.

    The calls are made in trio's thread when the pool's books are already right. They must not
    block, and may call any synchronous method of the pool. They come in pairs: each `connecting`
    has one `connected` or `connect_failed`, each `connected` one `closed`, each `acquired` one
    `released`, and each `acquire_started` one `acquired` or `acquire_failed`.

    >>> from conpool import ConnectionInfo, Observer
    >>> class Slow(Observer):
    ...     def acquired(self, info: ConnectionInfo, waited: float) -> None:
    ...         if waited > 1.0:
    ...             print(f"waited {waited:.1f} s for {info.endpoint}")
    """

    def acquire_started(self, endpoint: AnyEndpoint) -> None:
        """Somebody asks for a connection to `endpoint`."""

    def acquired(self, info: ConnectionInfo, waited: float) -> None:
        """A lease has begun, after `waited` seconds."""

    def acquire_failed(self, endpoint: AnyEndpoint, error: BaseException, waited: float) -> None:
        """An acquire ended in `error` (`trio.Cancelled` too) after `waited` seconds."""

    def released(self, info: ConnectionInfo, held: float) -> None:
        """A lease has ended, after `held` seconds; whether it was kept, `closed` tells."""

    def connecting(self, info: ConnectionInfo) -> None:
        """A dial has begun."""

    def connected(self, info: ConnectionInfo, took: float) -> None:
        """A dial has succeeded, after `took` seconds."""

    def connect_failed(self, info: ConnectionInfo, error: BaseException, took: float) -> None:
        """A dial has ended in `error` after `took` seconds."""

    def closed(self, info: ConnectionInfo, reason: CloseReason) -> None:
        """The pool has let go of a connection, for `reason`."""

    def cleared(self, endpoint: AnyEndpoint) -> None:
        """No connection to `endpoint` that exists now is lent again."""

    def circuit_changed(self, endpoint: AnyEndpoint, old: CircuitState, new: CircuitState) -> None:
        """The circuit of `endpoint` has gone from `old` to `new`."""


OnInfo: TypeAlias = Callable[[ConnectionInfo], object]
OnClosed: TypeAlias = Callable[[ConnectionInfo, CloseReason], object]


@final
class Announcer:
    """For each event, the calls that somebody wants to get.

    Each attribute is a tuple of callables, to be handed to `tell` with the event's arguments:

        if announcer.acquired:
            tell(announcer.acquired, info, waited)

    `reused` is no observer's event: it feeds the pool's `on_reused`.
    """

    __slots__ = (
        "acquire_failed",
        "acquire_started",
        "acquired",
        "circuit_changed",
        "cleared",
        "closed",
        "connect_failed",
        "connected",
        "connecting",
        "released",
        "reused",
    )

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
        guests = _check_observers(observers)
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


def tell(watchers: tuple[Callable[P, object], ...], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call each of `watchers`; log whatever `Exception` one raises, and go on with the next.

    Other exceptions (`KeyboardInterrupt`) are not theirs to raise, and are let through.
    """
    for watcher in watchers:
        try:
            watcher(*args, **kwargs)
        except Exception:
            about: object = args[0] if args else "nothing"
            endpoint = about.endpoint if isinstance(about, ConnectionInfo) else about
            _logger.exception("%s raised when it was told about %s", _name(watcher), endpoint)


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

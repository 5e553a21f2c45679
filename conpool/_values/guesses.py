"""Answers to guesses: the names that people type from habit, and what to write instead.

Other pools call the same things by other names. An error that says "unexpected keyword argument"
sends a newcomer to the documentation; one that names the right word does not.

A name that is no attribute is a descriptor that raises `AttributeError`: `hasattr` says no, type
checkers do not see it, and what exists costs no more to find (a `__getattr__` would).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import wraps
from inspect import signature
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeVar, final

T = TypeVar("T")

_EITHER: Final = "max_connections_per_endpoint, or max_connections for the whole pool"
_ASK: Final = "`async with pool.connection(endpoint) as conn:`, or `await pool.acquire(endpoint)`"
_GIVE: Final = "`pool.release(conn)`"
_END: Final = "`await pool.aclose()`, or leave the pool's `async with` block"
_READ: Final = "`pool.stats(endpoint)` or `pool.all_stats()`"

FOR_CONFIG: Final[Mapping[str, str]] = {
    **dict.fromkeys(("max_size", "maxsize", "pool_size", "size", "limit", "limits"), _EITHER),
    **dict.fromkeys(("max_pool_size", "max_conns", "max_open"), _EITHER),
    **dict.fromkeys(("min_size", "minsize", "min_pool_size", "min_idle"), "min_idle_per_endpoint"),
    **dict.fromkeys(("max_keepalive_connections", "max_overflow"), "max_idle_per_endpoint"),
    "max_idle": "max_idle_time (in seconds) or max_idle_per_endpoint (a count)",
    **dict.fromkeys(("keepalive_expiry", "keepalive_timeout", "idle_timeout"), "max_idle_time"),
    **dict.fromkeys(
        ("max_lifetime", "max_age", "pool_recycle", "ttl", "lifetime"), "max_connection_lifetime"
    ),
    **dict.fromkeys(("max_waiting", "max_queue", "queue_size"), "max_waiting_per_endpoint"),
    **dict.fromkeys(("max_uses", "max_queries", "max_requests"), "max_connection_uses"),
    **dict.fromkeys(("timeout", "pool_timeout", "wait_timeout"), "acquire_timeout"),
    **dict.fromkeys(("reset_timeout", "check_timeout"), "health_check_timeout"),
    **dict.fromkeys(("health_check", "pool_pre_ping", "check"), "ConnectionPool(health_check=...)"),
}
"""Options of other pools, and the options of `PoolConfig` that do the same."""

_ENDPOINT: Final = "pool.connection(endpoint): a pool serves any endpoint, named with each lease"
FOR_POOL: Final[Mapping[str, str]] = {
    **dict.fromkeys(("url", "dsn", "conninfo", "host", "port", "endpoint", "address"), _ENDPOINT),
    **dict.fromkeys(("check", "pool_pre_ping", "ping"), "health_check, or a driver's check()"),
    **dict.fromkeys(("reset", "configure", "connection_class", "init"), "driver: see Driver"),
    **dict.fromkeys(("observer", "on_event", "events"), "observers"),
    "open": "`async with ConnectionPool() as pool:`, which opens it",
}
"""Arguments of other pools, and those of `ConnectionPool` that do the same."""

ON_POOL: Final[Mapping[str, str]] = {
    **dict.fromkeys(("close", "terminate", "shutdown", "closeall", "close_all"), _END),
    **dict.fromkeys(("disconnect", "dispose"), f"{_END}; to go on with new ones, `pool.clear()`"),
    **dict.fromkeys(("open", "connect", "start"), "`async with pool:`, which opens it"),
    **dict.fromkeys(("get", "getconn", "get_connection", "checkout", "borrow", "take"), _ASK),
    **dict.fromkeys(("request", "execute", "lease", "lend"), _ASK),
    **dict.fromkeys(("put", "putconn", "put_connection", "checkin", "give_back"), _GIVE),
    **dict.fromkeys(("return_connection", "release_connection", "free"), _GIVE),
    **dict.fromkeys(("get_stats", "statistics", "status", "metrics", "info"), _READ),
    **dict.fromkeys(("size", "maxsize", "idle", "active", "waiting"), _READ),
    **dict.fromkeys(("get_size", "get_idle_size", "max_size", "min_size"), _READ),
    "resize": "`pool.set_limit(endpoint, count)`",
    "wait": "`await pool.warm(endpoint, count)`",
}
"""Attributes of other pools, and what does the same here."""

_RECEIVE: Final = "`receive_some()`, in a loop until the reply is whole"
_SEND: Final = "`send_all(data)`"
_SPEAK: Final = (
    "`session`, if the pool's driver made one: the connection itself is a stream of bytes"
)
_LET_GO: Final = (
    "`pool.release(conn)`, or leave its block; `await conn.aclose()` closes it for good"
)
_LOOK: Final = "`await conn.is_healthy()`"
ON_LEASE: Final[Mapping[str, str]] = {
    **dict.fromkeys(("read", "recv", "receive", "read_some", "readline", "readuntil"), _RECEIVE),
    **dict.fromkeys(("readexactly", "read_until", "readlines", "recv_into"), _RECEIVE),
    **dict.fromkeys(("write", "send", "sendall", "writelines", "drain", "flush"), _SEND),
    **dict.fromkeys(("execute", "query", "cursor", "fetch", "request", "get"), _SPEAK),
    **dict.fromkeys(("invalidate", "discard", "expire"), "`retire()`"),
}
"""Attributes of other connections, and what does the same on a lease, in any thread."""

ON_CONNECTION: Final[Mapping[str, str]] = {
    **ON_LEASE,
    **dict.fromkeys(("close", "release", "give_back", "free", "put", "disconnect"), _LET_GO),
    **dict.fromkeys(("closed", "is_closed", "is_open", "is_alive", "ping", "check"), _LOOK),
    **dict.fromkeys(("getpeername", "get_extra_info"), "`peer_address` or `ssl_object`"),
    **dict.fromkeys(("stream", "socket", "sock"), "`detach()`, which takes the stream for good"),
}
"""The same for a lease in trio's own thread."""
_NONE: Final[Mapping[str, str]] = MappingProxyType({})


def explain_option(name: str, of: str, known: Iterable[str], habits: Mapping[str, str]) -> str:
    """Say that `of` has no option `name`, and what to write instead, if that can be told."""
    instead = habits.get(name)
    if instead is None:
        instead = next(iter(get_close_matches(name, known, n=1)), None)
    return f"{of} has no option {name!r}" + ("" if instead is None else f": write {instead}")


def answers_guesses(
    explain: Callable[[str, Iterable[str]], str], attributes: Mapping[str, str] = _NONE
) -> Callable[[type[T]], type[T]]:
    """Have a class explain wrong keyword arguments, and name what to write for `attributes`.

    Args:
        explain: Returns the message about a keyword, given those that the constructor knows.
        attributes: What to write instead, for each name that is no attribute.
    """

    def decorate(cls: type[T]) -> type[T]:
        it: Any = cls
        init = it.__init__
        known = signature(init).parameters.keys()

        @wraps(init)
        def checking(self: T, *args: Any, **options: Any) -> None:
            for name in options:
                if name not in known:
                    raise TypeError(explain(name, known))
            init(self, *args, **options)

        it.__init__ = checking
        return answers_attributes(attributes)(cls) if attributes else cls

    return decorate


def answers_attributes(attributes: Mapping[str, str]) -> Callable[[type[T]], type[T]]:
    """Have a class name what to write for `attributes`, and not list them."""

    def decorate(cls: type[T]) -> type[T]:
        it: Any = cls
        for name, instead in attributes.items():
            setattr(it, name, Guess(cls.__name__, name, instead))

        def list_attributes(self: object) -> list[str]:
            return sorted(set(object.__dir__(self)) - attributes.keys())

        it.__dir__ = list_attributes
        return cls

    return decorate


@final
class Guess:
    """A name that is no attribute. Asking for it raises an error that says what to write."""

    __slots__ = ("_message", "_name")

    def __init__(self, owner: str, name: str, instead: str) -> None:
        self._name = name
        self._message = f"a {owner} has no {name!r}: write {instead}"

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise AttributeError(self._message, name=self._name, obj=instance)

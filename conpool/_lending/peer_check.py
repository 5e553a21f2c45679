"""Asking the peer: the user's health hook, bounded in time, and what it leaves behind."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from conpool._connection.hand_over import why_not_clean
from conpool._lending.lease import Connection, end_lease
from conpool._values.config_error import ConfigError
from conpool._values.states import CloseReason, ConnectionState

if TYPE_CHECKING:
    from conpool._core.records import Entry

HealthCheck: TypeAlias = Callable[[Connection[Any]], Awaitable[bool]]

_log = logging.getLogger("conpool")


def check_hook(hook: object) -> None:
    """Refuse what cannot be a health check.

    Raises:
        ConfigError: It is not callable, or plainly not asynchronous.
    """
    if hook is None:
        return
    if not callable(hook):
        raise ConfigError(f"health_check must be an async function, not {hook!r}")
    if inspect.isasyncgenfunction(hook) or _is_plain_function(hook):
        raise ConfigError(f"health_check must be an async function: {hook!r} is not")


def _is_plain_function(hook: object) -> bool:
    """Whether `hook` was written with `def`. A lambda may well return an awaitable."""
    if inspect.iscoroutinefunction(hook) or getattr(hook, "__name__", "") == "<lambda>":
        return False
    return inspect.isroutine(hook)


async def ask(lease: Connection[Any], hook: HealthCheck, timeout: float) -> bool:
    """Return what `hook` says of the connection; false if it raises or takes too long."""
    with trio.move_on_after(timeout):
        try:
            return bool(await hook(lease))
        except Exception:  # noqa: BLE001 - a hook may raise anything, and all of it means "no"
            _log.debug("health check of %r failed", lease, exc_info=True)
    return False


async def check(
    lease: Connection[Any], entry: Entry, hook: HealthCheck, timeout: float
) -> CloseReason | None:
    """Check a connection that nobody holds; return why it cannot be lent, None if it can.

    `lease` is for the hook alone and ends here: a hook that keeps it keeps nothing.
    """
    try:
        healthy = await ask(lease, hook, timeout)
    finally:
        end_lease(lease)
        entry.holder = None
    if entry.state is not ConnectionState.ACTIVE:
        return None  # closed meanwhile, and so no longer anyone's concern
    return why_not_clean(entry.link, None) if healthy else CloseReason.UNHEALTHY

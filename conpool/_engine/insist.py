"""Calls without which somebody would wait for ever, or a report would be lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from conpool._errors.pool_log import NO_LOG, PoolLog

R = TypeVar("R")


def insist(call: Callable[[], R], log: PoolLog = NO_LOG) -> R:
    """Make `call`, and once more if it raises. What is no `Exception` is raised all the same."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - it may be anything, and the call must be made
        outcome = call()
        log.failed("%r has failed, and was called again", call, error=error)
        return outcome
    except BaseException:
        call()
        raise

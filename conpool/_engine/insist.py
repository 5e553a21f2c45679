"""Calls without which somebody would wait for ever, or a report would be lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeVar

R = TypeVar("R")

_log: Final = logging.getLogger("conpool")


def insist(call: Callable[[], R]) -> R:
    """Make `call`, and once more if it raises. What is no `Exception` is raised all the same."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - it may be anything, and the call must be made
        outcome = call()
        _log.error("%r has failed, and was called again", call, exc_info=error)
        return outcome
    except BaseException:
        call()
        raise

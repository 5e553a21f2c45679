"""Whether the service can work: what the pools know of their endpoints, and the user's checks."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, final

import trio

from conpool._stats.report import duration
from conpool._values.config_error import PoolError
from conpool._values.states import PoolState
from conpool.contrib._asgi.numbers import Pools, core_of, find_trouble

Check: TypeAlias = Callable[[], Awaitable[object]]

_log: Final = logging.getLogger("conpool")

_BATCH: Final = 200
"""Endpoints between two checkpoints: about a millisecond's worth."""


class Finding(NamedTuple):
    """What one check found."""

    status: str
    """`ok` or `failing`."""
    seconds: float
    error: str | None
    result: str | float | None
    """What the check returned, if JSON has a plain value for it."""


@final
class Health:
    """Looks at the endpoints of all pools, and runs the checks side by side."""

    __slots__ = ("_checks", "_failing", "_pools", "_timeout")

    def __init__(self, pools: Pools, checks: Mapping[str, Check], timeout: float) -> None:
        self._pools = pools
        self._checks = checks
        self._timeout = timeout
        self._failing: set[str] = set()

    async def examine(self) -> tuple[bool, dict[str, Any]]:
        """Return whether all is well, and the details for JSON.

        It takes a little more than the time that a check has, at most. If it is cancelled, so are
        the checks.
        """
        findings: dict[str, Finding] = {}
        async with trio.open_nursery() as nursery:
            for name, check in self._checks.items():
                nursery.start_soon(self._run, name, check, findings)
        pools = [await self._look_at(place) for place in range(len(self._pools))]
        checks = {name: findings[name]._asdict() for name in self._checks}
        is_well = all(part["status"] == "ok" for part in (*pools, *checks.values()))
        status = "ok" if is_well else "failing"
        return is_well, {"status": status, "pools": pools, "checks": checks}

    async def _look_at(self, place: int) -> dict[str, Any]:
        pool, now = self._pools[place], trio.current_time()
        core = core_of(pool)
        endpoints: list[dict[str, Any]] = []
        is_well = core.state is PoolState.OPEN
        for number, (endpoint, sub) in enumerate(core.subs.copy().items(), start=1):
            trouble = find_trouble(sub, now)
            is_well &= trouble.status != "failing"
            endpoints.append({"endpoint": str(endpoint)} | trouble._asdict())
            if number % _BATCH == 0:
                await trio.lowlevel.checkpoint()
        status = "ok" if is_well else "failing"
        state = core.state.value
        return {"name": pool.name, "status": status, "state": state, "endpoints": endpoints}

    async def _run(self, name: str, check: Check, findings: dict[str, Finding]) -> None:
        began_at = trio.current_time()
        error: str | None = None
        result: object = None
        with trio.move_on_after(self._timeout) as scope:
            try:
                result = await check()
            except Exception as raised:  # noqa: BLE001 - whatever it raises is its verdict
                error = _describe(raised)
                self._tell(name, raised)
        if result is False:
            error = "it returned False"
        if scope.cancelled_caught:
            error = f"no answer within {duration(self._timeout)}"
        if error is None:
            self._failing.discard(name)
        seconds = trio.current_time() - began_at
        plain = result if isinstance(result, str | int | float) and error is None else None
        findings[name] = Finding("failing" if error else "ok", seconds, error, plain)

    def _tell(self, name: str, raised: Exception) -> None:
        """Log the whole error once, when a check begins to fail: the reply does not have it."""
        if name not in self._failing:
            self._failing.add(name)
            _log.warning("the health check %r raised", name, exc_info=raised)


def _describe(error: Exception) -> str:
    """Say what was raised. Only this package's own errors are known to show no secret."""
    kind = type(error).__name__
    if isinstance(error, PoolError):
        return f"{kind}: {error}"
    if isinstance(error, OSError) and error.strerror and error.errno is not None:
        return f"{kind}: {os.strerror(error.errno)}"
    return f"{kind}; the log says more"

"""Asserts that nobody uses a pool and that its books balance."""

from __future__ import annotations

from typing import Any, Final

from conpool._pool.pool import ConnectionPool
from conpool._stats.snapshot import EndpointStats, PoolStats

_OUTSTANDING: Final = {
    "active": "connections are lent, checked or reset",
    "connecting": "dials run",
    "closing": "connections are being closed",
    "waiting": "tasks wait",
}
_SUMMED: Final = ("active", "idle", "connecting", "closing", "waiting")


def assert_quiescent(pool: ConnectionPool[Any]) -> None:
    """Assert that no lease, waiter, dial or close is outstanding, and that the counts add up.

    The pool may be open, with idle connections and background tasks. A connection that was given
    back a moment ago may still be closing: first `await trio.testing.wait_all_tasks_blocked()`.

    Raises:
        AssertionError: Something is outstanding, or the counts contradict each other. The message
            lists all that is wrong and shows the pool's statistics.
    """
    stats = pool.all_stats()
    wrong = _check_counts("the pool", stats)
    for endpoint, member in stats.endpoints.items():
        wrong += _check_counts(str(endpoint), member)
        if not 0 <= member.idle <= member.limit:
            wrong.append(f"{endpoint}: {member.idle} idle, with a limit of {member.limit}")
    for name in _SUMMED:
        parts = sum(getattr(member, name) for member in stats.endpoints.values())
        if parts != getattr(stats, name):
            wrong.append(f"the pool: {name} is {getattr(stats, name)}, its endpoints have {parts}")
    if wrong:
        raise AssertionError("the pool is not quiescent:\n  " + "\n  ".join(wrong) + f"\n{stats}")


def _check_counts(whose: str, stats: EndpointStats | PoolStats) -> list[str]:
    wrong = [
        f"{whose}: {getattr(stats, name)} {meaning}"
        for name, meaning in _OUTSTANDING.items()
        if getattr(stats, name) != 0
    ]
    kept = stats.idle + stats.active + stats.closing
    if stats.total_created - stats.total_closed != kept:
        wrong.append(
            f"{whose}: {stats.total_created} created less {stats.total_closed} closed is not "
            f"the {kept} that exist"
        )
    reasons = sum(stats.closed_by_reason.values())
    if reasons != stats.total_closed:
        wrong.append(f"{whose}: {stats.total_closed} closed, but for {reasons} reasons")
    if stats.total_reused > stats.acquired:
        wrong.append(f"{whose}: {stats.total_reused} reused, of {stats.acquired} acquired")
    return wrong

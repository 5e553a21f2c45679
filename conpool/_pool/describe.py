"""What a pool says of itself."""

from __future__ import annotations

from conpool._connection.pooled import PooledCore
from conpool._core import seen
from conpool._engine.engine import Engine
from conpool._stats.snapshot import EndpointStats, PoolStats
from conpool._values.group import Target, members_of


def see_target(engine: Engine, target: Target) -> EndpointStats:
    """Return the statistics of an endpoint or a group."""
    subs = [engine.core.peek(member) for member in members_of(target)]
    return seen.see_target(target, subs, _time_of(engine))


def see_pool(engine: Engine, name: str) -> PoolStats:
    """Return the statistics of the whole pool."""
    core = engine.core
    subs = {one: core.peek(one) for one in core.memory.known_with(core.subs)}
    total = core.pool_limit.total
    return seen.see_all(name, subs, core.memory.forgotten, total, _time_of(engine))


def _time_of(engine: Engine) -> float:
    # Before the pool is open there may be no clock, and nobody waits.
    return engine.now() if engine.thread else 0.0


def describe(name: str, core: PooledCore) -> str:
    """Return the `repr` of a pool.

    Debuggers and logs ask for it at any time: it costs the same, whatever the pool holds.
    """
    count, limit = len(core.subs), core.pool_limit.limit
    connections = f", {len(limit.borrowers)} of {limit.total} connections"
    return (
        f"<conpool.ConnectionPool {name!r} {core.state.value}:"
        f" {count} {'endpoint' if count == 1 else 'endpoints'}"
        f"{connections if core.pool_limit.is_limited else ''}>"
    )


def why_not_copied(name: str) -> str:
    """Say why there cannot be a copy of a pool."""
    return (
        f"pool {name} cannot be copied or pickled: its connections and tasks exist once."
        " Make another pool, from the same config"
    )

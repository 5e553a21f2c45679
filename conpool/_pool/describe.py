"""What a pool says of itself."""

from __future__ import annotations

from conpool._connection.pooled import PooledCore


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

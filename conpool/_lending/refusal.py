"""Makes the errors that tell a caller why it has got no connection."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from conpool._connection.pooled import PooledCore, PooledSub, PooledWaiter
from conpool._core.records import WaitOutcome
from conpool._engine.holders import Slots, Tick
from conpool._errors.connect import ConnectError
from conpool._errors.obstacles import Obstacles
from conpool._errors.pool import AcquireTimeout, CircuitOpen, NoHealthyEndpoint, QueueFull
from conpool._values.config_error import PoolError
from conpool._values.states import AcquirePhase


def make_timeout(
    core: PooledCore,
    sub: PooledSub,
    waiter: PooledWaiter,
    now: float,
    *,
    phase: AcquirePhase,
    pool_name: str,
) -> AcquireTimeout:
    """Make the error for `waiter`, whose time has run out in `phase`."""
    obstacles = _find_obstacles(core, sub, now)
    if phase != "check":  # else it waited for an answer, and not for a slot
        slots: Slots = waiter.slots or Tick(core).find_slots(waiter, sub)
        waiter.slots = None  # it knows tasks, and the error's traceback keeps the waiter alive
        holders = slots.find_holders(now)
        obstacles = replace(
            obstacles,
            whole_pool=holders.counts if slots.is_pool_wide else "",
            holders=holders.lines,
            held_by_others=holders.others,
            held_by_caller=holders.held_by_caller,
            is_deadlock=slots.is_deadlock,
        )
    error = AcquireTimeout(
        obstacles,
        endpoint=sub.endpoint,
        phase=phase,
        waited=now - waiter.since,
        pool_name=pool_name,
    )
    error.__cause__ = obstacles.last_connect_error
    return error


def make_queue_full(
    core: PooledCore, sub: PooledSub, now: float, *, pool_name: str, shed: bool = False
) -> QueueFull:
    """Make the error for a caller that would have to wait, where no more may, or for so long."""
    obstacles = _find_obstacles(core, sub, now)
    error = QueueFull(obstacles, endpoint=sub.endpoint, pool_name=pool_name, shed=shed)
    error.__cause__ = obstacles.last_connect_error
    return error


def make_turned_away(
    core: PooledCore, sub: PooledSub, waiter: PooledWaiter, now: float, *, pool_name: str
) -> PoolError:
    """Make the error for `waiter`, which the core has turned away though it had time left."""
    if waiter.outcome is WaitOutcome.SHED:
        return make_queue_full(core, sub, now, pool_name=pool_name, shed=True)
    if waiter.outcome is WaitOutcome.UNHEALTHY:
        return NoHealthyEndpoint(reasons={sub.endpoint: "it is marked unhealthy"})
    return make_circuit_open(sub, now)


def make_circuit_open(sub: PooledSub, now: float) -> CircuitOpen:
    """Make the error for a caller that needs a dial, where the circuit allows none."""
    circuit = sub.gate.circuit
    retry_after = 0.0 if circuit is None else circuit.retry_after(now)
    error = CircuitOpen(endpoint=sub.endpoint, retry_after=retry_after)
    error.__cause__ = sub.gate.last_error
    return error


def _find_obstacles(core: PooledCore, sub: PooledSub, now: float) -> Obstacles:
    """Return what keeps callers of `sub` from a connection, apart from those who hold some."""
    gate, limit = sub.gate, core.pool_limit.limit
    is_pool_full = sub.limit.has_free_slot and not limit.has_free_slot
    return Obstacles(
        stats=sub.snapshot(now),
        last_connect_error=cast("ConnectError | None", gate.last_error),
        failing_for=None if gate.outage_since is None else now - gate.outage_since,
        next_dial_in=gate.opens_at - now,
        whole_pool=f"{len(limit.borrowers)} of {limit.total}" if is_pool_full else "",
        max_connecting=sub.max_connecting if sub.connecting >= sub.max_connecting else None,
    )

"""Makes the errors that tell a caller why it has got no connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from conpool._connection.pooled import PooledCore, PooledSub, PooledWaiter
from conpool._core.seen import see, see_group
from conpool._engine.holders import DESCRIBED, Slots, Tick
from conpool._errors.connect import ConnectError
from conpool._errors.copies import copy_for_caller, without_traceback
from conpool._errors.obstacles import Obstacles
from conpool._errors.pool import (
    AcquireTimeout,
    CircuitOpen,
    NoHealthyEndpoint,
    PoolClosed,
    QueueFull,
)
from conpool._values.config_error import PoolError
from conpool._values.endpoint import AnyEndpoint
from conpool._values.group import Target
from conpool._values.states import AcquirePhase, WaitOutcome


def make_refusal(
    core: PooledCore, sub: PooledSub, waiter: PooledWaiter, now: float, *, pool_name: str
) -> Exception:
    """Make the error for `waiter`, which the core has refused."""
    if waiter.outcome is WaitOutcome.DIAL_FAILED:
        return copy_for_caller(cast("ConnectError", waiter.error))
    if waiter.outcome is WaitOutcome.ALL_FAILED:
        return make_no_healthy(waiter.reasons or {})
    if waiter.outcome is WaitOutcome.POOL_CLOSED:
        return PoolClosed(f"pool {pool_name} was closed while this task waited for a connection")
    if waiter.outcome is not WaitOutcome.TIMEOUT:
        return _make_turned_away(core, sub, waiter, now, pool_name=pool_name)
    coming = waiter.coming
    phase: AcquirePhase = "queue"
    if coming is not None:
        phase = "check" if coming.was_idle else "connect"
    return make_timeout(core, sub, waiter, now, phase=phase, pool_name=pool_name)


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
    obstacles = _find_obstacles(core, waiter, now)
    if phase != "check":  # else it waited for an answer, and not for a slot
        slots: tuple[Slots, ...] = waiter.slots or Tick(core).find_all_slots(waiter)
        waiter.slots = None  # it knows tasks, and the error's traceback keeps the waiter alive
        holders = [one.find_holders(now) for one in slots]
        lines = [line for one in holders for line in one.lines]
        obstacles = replace(
            obstacles,
            whole_pool=next((one.counts for one in holders if one.counts), ""),
            holders=tuple(lines[:DESCRIBED]),
            held_by_others=sum(one.others for one in holders) + len(lines[DESCRIBED:]),
            held_by_caller=sum(one.held_by_caller for one in holders),
            is_deadlock=all(one.is_deadlock for one in slots),
        )
    error = AcquireTimeout(
        obstacles,
        endpoint=_target_of(sub, waiter),
        phase=phase,
        waited=now - waiter.since,
        pool_name=pool_name,
    )
    error.__cause__ = obstacles.last_connect_error
    return error


def make_queue_full(
    core: PooledCore,
    sub: PooledSub,
    waiter: PooledWaiter,
    now: float,
    *,
    pool_name: str,
    shed: bool = False,
) -> QueueFull:
    """Make the error for `waiter`, which would have to wait where no more may, or for so long."""
    obstacles = _find_obstacles(core, waiter, now)
    target = _target_of(sub, waiter)
    error = QueueFull(obstacles, endpoint=target, pool_name=pool_name, shed=shed)
    error.__cause__ = obstacles.last_connect_error
    return error


def _make_turned_away(
    core: PooledCore, sub: PooledSub, waiter: PooledWaiter, now: float, *, pool_name: str
) -> PoolError:
    """Make the error for `waiter`, which the core has turned away though it had time left."""
    if waiter.outcome is WaitOutcome.SHED:
        return make_queue_full(core, sub, waiter, now, pool_name=pool_name, shed=True)
    if waiter.outcome is WaitOutcome.UNHEALTHY:
        return make_no_healthy({sub.endpoint: "it is marked unhealthy"})
    return make_circuit_open(sub, now)


def make_circuit_open(sub: PooledSub, now: float) -> CircuitOpen:
    """Make the error for a caller that needs a dial, where the circuit allows none."""
    circuit = sub.gate.circuit
    retry_after = 0.0 if circuit is None else circuit.retry_after(now)
    error = CircuitOpen(endpoint=sub.endpoint, retry_after=retry_after)
    error.__cause__ = sub.gate.last_error
    return error


def make_no_healthy(reasons: Mapping[AnyEndpoint, Exception | str]) -> NoHealthyEndpoint:
    """Make the error for a caller that no member of its group can serve."""
    said = {endpoint: _say(endpoint, reason) for endpoint, reason in reasons.items()}
    error = NoHealthyEndpoint(reasons=said)
    causes = [reason for reason in reasons.values() if isinstance(reason, ConnectError)]
    if causes:
        error.__cause__ = without_traceback(causes[-1])
    return error


def _say(endpoint: AnyEndpoint, reason: Exception | str) -> str:
    return str(reason).removeprefix(f"cannot connect to {endpoint}, ")


def _target_of(sub: PooledSub, waiter: PooledWaiter) -> Target:
    return sub.endpoint if waiter.group is None else waiter.group.target


def _find_obstacles(core: PooledCore, waiter: PooledWaiter, now: float) -> Obstacles:
    """Return what keeps `waiter` from a connection, apart from those who hold some."""
    subs, group, limit = waiter.subs, waiter.group, core.pool_limit.limit
    stats = see(subs[0], now) if group is None else see_group(group.target, subs, now)
    is_pool_full = not limit.has_free_slot and any(sub.limit.has_free_slot for sub in subs)
    errors = (sub.gate.last_error for sub in subs)
    failing = [sub.gate for sub in subs if sub.gate.outage_since is not None]
    since = max((gate.outage_since or 0.0 for gate in failing), default=now)
    is_dialling = all(sub.connecting >= sub.max_connecting for sub in subs)
    return Obstacles(
        stats=stats,
        last_connect_error=cast("ConnectError | None", next(filter(None, errors), None)),
        failing_for=now - since if len(failing) == len(subs) else None,
        next_dial_in=min(sub.gate.opens_at for sub in subs) - now,
        whole_pool=f"{len(limit.borrowers)} of {limit.total}" if is_pool_full else "",
        max_connecting=sum(sub.max_connecting for sub in subs) if is_dialling else None,
    )

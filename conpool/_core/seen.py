"""What can be seen of the books at one moment: the statistics of endpoints and groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from conpool._core.records import AnyGroup, AnySubPool
from conpool._stats.counters import Counters
from conpool._stats.snapshot import EndpointStats, PoolStats
from conpool._values.endpoint import AnyEndpoint
from conpool._values.group import EndpointGroup, Target
from conpool._values.states import CircuitState

_BEST_FIRST: Final = (CircuitState.CLOSED, CircuitState.HALF_OPEN, CircuitState.OPEN)


def see(sub: AnySubPool, now: float) -> EndpointStats:
    """Return the statistics of one endpoint."""
    first = sub.queue.find()
    return EndpointStats.of(
        sub.endpoint,
        limit=sub.limit.total,
        active=max(sub.active, 0) + len(sub.reserved),  # another thread may read amid a change
        idle=len(sub.idle) - len(sub.reserved),
        connecting=sub.connecting,
        closing=sub.closing + sub.count_leaving(),
        waiting=sub.waiting,
        oldest_wait=0.0 if first is None else now - first.since,
        paused=sub.gate.is_told_to_pause,
        circuit=sub.gate.circuit_state,
        counters=sub.counters,
    )


def see_group(target: EndpointGroup, subs: Sequence[AnySubPool], now: float) -> EndpointStats:
    """Return the statistics of a group: the sums of its members'.

    A task that waits for several of them counts once. The group is paused if all of them are, and
    its circuit is as closed as the best of theirs.
    """
    members = [see(sub, now) for sub in subs]
    circuits = {member.circuit for member in members}
    counters = Counters()
    for sub in subs:
        counters.absorb(sub.counters)
    return EndpointStats.of(
        target,
        limit=sum(member.limit for member in members),
        active=sum(member.active for member in members),
        idle=sum(member.idle for member in members),
        connecting=sum(member.connecting for member in members),
        closing=sum(member.closing for member in members),
        waiting=sum(member.waiting for member in members) - count_repeated(subs),
        oldest_wait=max(member.oldest_wait for member in members),
        paused=all(member.paused for member in members),
        circuit=next(state for state in _BEST_FIRST if state in circuits),
        counters=counters,
    )


def see_target(target: Target, subs: Sequence[AnySubPool], now: float) -> EndpointStats:
    """Return the statistics of an endpoint or of a group, whose sub-pools are `subs`."""
    if isinstance(target, EndpointGroup):
        return see_group(target, subs, now)
    return see(subs[0], now)


def count_repeated(subs: Sequence[AnySubPool]) -> int:
    """Return how often a waiter of `subs` stands in a queue, besides in the first."""
    places: Counter[AnyGroup] = Counter()
    once: dict[AnyGroup, int] = {}
    for sub in subs:
        if not sub.queue.bars_groups:
            groups = dict(sub.groups)  # another thread may read
            places.update(groups)
            once |= groups
    return places.total() - sum(once.values())


def see_all(
    name: str,
    subs: Mapping[AnyEndpoint, AnySubPool],
    forgotten: Counters,
    limit: int | None,
    now: float,
) -> PoolStats:
    """Return the statistics of a pool; a task that waits for several endpoints counts once."""
    endpoints = {endpoint: see(sub, now) for endpoint, sub in subs.items()}
    stats = PoolStats.of(name, endpoints, forgotten, limit)
    return replace(stats, waiting=stats.waiting - count_repeated(list(subs.values())))

"""The worlds of groups: two members of one connection each, and two who wait, are enough.

They also have pool-wide limits, shared connections, late tasks and singles who ask for one member.
"""

from __future__ import annotations

from typing import Any, Final

from conpool._values.config import CircuitBreaker

from .world import World

SHY: Final = CircuitBreaker(failure_threshold=1, reset_timeout=1)
ONE: Final[dict[str, Any]] = {"max_connections_per_endpoint": 1}


def _happens(*kinds: str) -> frozenset[str]:
    return frozenset(("ask the group", *kinds))


GROUPS: Final = (
    World(
        name="a group, a caller of one member, connections that are lost",
        settings=ONE,
        endpoints=2,
        policy="round_robin",
        waiters=2,
        happens=_happens("ask", "discarded"),
        at_least=300,
    ),
    World(
        name="a group, the first available, dials fail, no grace",
        settings=ONE | {"outage_grace": 0},
        endpoints=2,
        policy="first_available",
        waiters=2,
        happens=_happens("a second passes", "dial failed"),
        at_least=500,
    ),
    World(
        name="a group, the least loaded, told to stop and to go on",
        settings=ONE,
        endpoints=2,
        policy="least_loaded",
        waiters=2,
        happens=_happens("paused"),
        at_least=200,
    ),
    World(
        name="a group, members that are marked",
        settings=ONE,
        endpoints=2,
        policy="first_available",
        waiters=2,
        happens=_happens("marked", "shut"),
        at_least=300,
    ),
    World(
        name="a group, new connections wanted",
        settings=ONE,
        endpoints=2,
        policy="first_available",
        waiters=2,
        happens=_happens("ask the group freshly"),
        at_least=100,
    ),
    World(
        name="a group and a caller of one member share one slot",
        settings={"max_connections_per_endpoint": 2, "max_connections": 1},
        endpoints=2,
        policy="first_available",
        waiters=2,
        happens=_happens("ask", "discarded"),
        at_least=200,
    ),
    World(
        name="a group, connections shared by two, members that go away",
        settings=ONE,
        endpoints=2,
        policy="first_available",
        waiters=2,
        shares=True,
        happens=_happens("discarded", "goes away"),
        at_least=200,
    ),
    World(
        name="a group, tasks run late",
        settings=ONE,
        endpoints=2,
        policy="first_available",
        waiters=2,
        is_lazy=True,
        happens=_happens("cleared"),
        at_least=200,
    ),
    World(
        name="a group, idle connections that are checked first",
        settings=ONE,
        endpoints=2,
        policy="first_available",
        waiters=2,
        is_checked=True,
        happens=_happens("peer closed"),
        at_least=200,
    ),
    World(
        name="a group, circuits that open and are tried",
        settings=ONE | {"circuit_breaker": SHY},
        endpoints=2,
        policy="first_available",
        waiters=2,
        happens=_happens("a second passes", "dial failed"),
        at_least=300,
    ),
    World(
        name="a group, circuits that open while connections are lent",
        settings=ONE | {"circuit_breaker": SHY},
        endpoints=2,
        policy="first_available",
        waiters=2,
        happens=_happens("discarded", "failure reported"),
        at_least=300,
    ),
)

GROUPS_IN_PIECES: Final = (
    World(
        name="a group, members are marked, and the pool closes",
        settings=ONE | {"outage_grace": 0},
        endpoints=2,
        policy="first_available",
        waiters=2,
        happens=_happens("marked", "shut"),
        at_least=300,
    ),
)
"""Searched with the smallest pieces of work."""

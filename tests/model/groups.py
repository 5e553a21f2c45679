"""The worlds of groups: two members of one connection each, and two who wait, are enough.

They also have pool-wide limits, shared connections, late tasks and singles who ask for one member.
"""

from __future__ import annotations

from typing import Any, Final

from conpool._values.config import CircuitBreaker

from .world import World

SHY: Final = CircuitBreaker(failure_threshold=1, reset_timeout=1)
ONE: Final[dict[str, Any]] = {"max_connections_per_endpoint": 1}


def _group(name: str, *happens: str, **more: Any) -> World:
    """Make a world whose two endpoints are a group, which is asked."""
    kinds = frozenset(("ask the group", *happens))
    given = {"settings": ONE, "policy": "first_available"} | more
    return World(name=name, endpoints=2, waiters=2, happens=kinds, **given)


GROUPS: Final = (
    _group(
        "a group, a caller of one member, connections that are lost",
        "ask",
        "discarded",
        policy="round_robin",
        at_least=300,
    ),
    _group(
        "a group, the first available, dials fail, no grace",
        "a second passes",
        "dial failed",
        settings=ONE | {"outage_grace": 0},
        at_least=500,
    ),
    _group(
        "a group, the least loaded, told to stop and to go on",
        "paused",
        policy="least_loaded",
        at_least=200,
    ),
    _group("a group, members that are marked", "marked", "shut", at_least=300),
    _group("a group, new connections wanted", "ask the group freshly", at_least=100),
    _group(
        "a group and a caller of one member share one slot",
        "ask",
        "discarded",
        settings={"max_connections_per_endpoint": 2, "max_connections": 1},
        at_least=200,
    ),
    _group(
        "a group, connections shared by two, members that go away",
        "discarded",
        "goes away",
        shares=True,
        at_least=200,
    ),
    _group("a group, tasks run late", "cleared", is_lazy=True, at_least=200),
    _group(
        "a group, idle connections that are checked first",
        "peer closed",
        is_checked=True,
        at_least=200,
    ),
    _group(
        "a group, circuits that open and are tried",
        "a second passes",
        "dial failed",
        settings=ONE | {"circuit_breaker": SHY},
        at_least=300,
    ),
    _group(
        "a group, circuits that open while connections are lent",
        "discarded",
        "failure reported",
        settings=ONE | {"circuit_breaker": SHY},
        at_least=300,
    ),
)

GROUPS_IN_PIECES: Final = (
    _group(
        "a group, members are marked, and the pool closes",
        "marked",
        "shut",
        settings=ONE | {"outage_grace": 0},
        at_least=300,
    ),
)
"""Searched with the smallest pieces of work."""

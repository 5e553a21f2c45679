"""The worlds that are searched: small enough to see all of each, different enough to matter.

Two connections for each endpoint, and two or three waiters, are enough for every rule to meet every
other: a limit of one has no order among connections, and a third of anything behaves as the second
does.
"""

from __future__ import annotations

from typing import Any, Final

from conpool._values.config import CircuitBreaker

from .world import World

PAIR: Final[dict[str, Any]] = {"max_connections_per_endpoint": 2}


def _happens(*kinds: str) -> frozenset[str]:
    return frozenset(kinds)


SHARED: Final = (
    World(
        name="one endpoint, connections shared by two",
        settings=PAIR,
        waiters=2,
        shares=True,
        happens=_happens("cleared", "companion ended", "discarded", "goes away", "limit set"),
        at_least=1000,
    ),
    World(
        name="one connection shared by two, its room changes",
        settings={"max_connections_per_endpoint": 1},
        waiters=3,
        shares=True,
        happens=_happens(
            "goes away", "takes one", "takes two", "ask fresh", "paused", "retired", "swept"
        ),
        at_least=1000,
    ),
    World(
        name="shared, two endpoints under a pool-wide limit",
        settings=PAIR | {"max_connections": 1},
        endpoints=2,
        waiters=2,
        shares=True,
        happens=_happens("discarded", "takes one"),
        at_least=500,
    ),
    World(
        name="shared, tasks run late",
        settings=PAIR,
        waiters=2,
        is_lazy=True,
        shares=True,
        happens=_happens("cleared", "goes away"),
        at_least=1000,
    ),
    World(
        name="shared, one connection, tasks run late",
        settings={"max_connections_per_endpoint": 1},
        is_lazy=True,
        shares=True,
        happens=_happens("companion ended", "discarded", "interrupted", "takes one", "takes two"),
        at_least=300,
    ),
    World(
        name="shared, two endpoints share two slots",
        settings=PAIR | {"max_connections": 2},
        endpoints=2,
        waiters=2,
        shares=True,
        happens=_happens("goes away"),
        at_least=1000,
    ),
    World(
        name="shared, connections that are used up",
        settings=PAIR | {"max_connection_uses": 2},
        waiters=2,
        is_lazy=True,
        shares=True,
        happens=_happens("discarded"),
        at_least=100,
    ),
    World(
        name="one endpoint, reset after each lease",
        settings=PAIR,
        waiters=2,
        is_courteous=True,
        has_resets=True,
        happens=_happens("ask fresh", "cleared", "reset failed", "shut"),
        at_least=200,
    ),
    World(
        name="two endpoints share one slot, reset after each lease",
        settings=PAIR | {"max_connections": 1},
        endpoints=2,
        waiters=2,
        has_resets=True,
        happens=_happens("cleared", "reset failed"),
        at_least=100,
    ),
    World(
        name="shared by two, reset after the last lease",
        settings=PAIR,
        waiters=2,
        has_resets=True,
        shares=True,
        happens=_happens("goes away", "reset failed", "limit set", "interrupted"),
        at_least=200,
    ),
)
"""Worlds of drivers: connections that are shared, or reset."""

BREAKER: Final = CircuitBreaker(failure_threshold=2, reset_timeout=2)
FRAGILE: Final = CircuitBreaker(failure_threshold=1, reset_timeout=0, half_open_max=2)

CUT_OFF: Final = (
    World(
        name="one endpoint, a circuit that opens and is tried",
        settings=PAIR | {"circuit_breaker": BREAKER},
        waiters=2,
        happens=_happens("a second passes", "ask fresh", "dial failed"),
        at_least=500,
    ),
    World(
        name="one endpoint, two trials, dials that are given up",
        settings=PAIR | {"circuit_breaker": FRAGILE},
        waiters=2,
        is_slow=True,
        happens=_happens("a second passes", "cleared", "dial failed", "failed here"),
        at_least=300,
    ),
    World(
        name="one connection, a circuit, early deaths, protocols that report",
        settings={"max_connections_per_endpoint": 1, "circuit_breaker": BREAKER},
        waiters=2,
        happens=_happens(
            "a second passes", "dial failed", "failure reported", "lost early", "success reported"
        ),
        at_least=300,
    ),
    World(
        name="two endpoints with circuits share one slot",
        settings={
            "max_connections_per_endpoint": 1,
            "max_connections": 1,
            "circuit_breaker": CircuitBreaker(failure_threshold=1, reset_timeout=1),
        },
        endpoints=2,
        waiters=2,
        happens=_happens("a second passes", "dial failed"),
        at_least=200,
    ),
    World(
        name="one endpoint, marked and paused",
        settings=PAIR,
        waiters=2,
        happens=_happens("ask fresh", "discarded", "marked", "paused", "warming"),
        at_least=500,
    ),
    World(
        name="one connection, a queue that sheds load",
        settings={"max_connections_per_endpoint": 1, "queue_target_delay": 1},
        happens=_happens("a second passes"),
        at_least=300,
    ),
)
"""Worlds of the breaker, of marks, and of the rule for shedding load."""

SMALL: Final = (
    *SHARED,
    *CUT_OFF,
    World(
        name="one endpoint and most of what it can be told",
        settings=PAIR,
        waiters=2,
        is_courteous=True,
        happens=_happens("ask fresh", "cleared", "discarded", "interrupted", "paused", "shut"),
        at_least=500,
    ),
    World(
        name="one endpoint, idle connections that are looked at, a limit that changes",
        settings=PAIR,
        waiters=2,
        happens=_happens("cleared", "limit set", "paused", "peer closed", "reserved", "shut"),
        at_least=1000,
    ),
    World(
        name="one endpoint, warmed, with a limit that changes",
        settings=PAIR,
        is_courteous=True,
        happens=_happens("cleared", "discarded", "limit set", "paused", "warming"),
        at_least=1000,
    ),
    World(
        name="one endpoint, checked before it lends, callers that lose patience",
        settings=PAIR,
        waiters=2,
        is_checked=True,
        happens=_happens("ask fresh", "cleared", "discarded", "peer closed", "reserved"),
        at_least=1000,
    ),
    World(
        name="one endpoint, checked after a silence, connections that get old",
        settings=PAIR | {"health_check_after": 1, "max_idle_time": 2},
        waiters=2,
        is_checked=True,
        happens=_happens("a second passes", "reserved"),
        at_least=500,
    ),
    World(
        name="one endpoint, few kept idle, old dials that hang",
        settings=PAIR | {"max_idle_per_endpoint": 1},
        waiters=2,
        is_slow=True,
        happens=_happens("cleared", "cleared and interrupted", "discarded", "limit set"),
        at_least=150,
    ),
    World(
        name="one endpoint, an outage and its grace",
        settings=PAIR | {"outage_grace": 2},
        happens=_happens("a second passes", "ask fresh", "dial failed", "lost early"),
        at_least=500,
    ),
    World(
        name="one endpoint, no grace, warmed while dials fail",
        settings=PAIR | {"outage_grace": 0, "min_idle_per_endpoint": 1, "max_idle_time": 4},
        waiters=2,
        happens=_happens("a second passes", "dial failed", "swept", "warming"),
        at_least=500,
    ),
    World(
        name="two endpoints share one slot, dials and checks that nobody waits for",
        settings=PAIR | {"max_connections": 1},
        endpoints=2,
        waiters=2,
        is_checked=True,
        is_slow=True,
        happens=_happens("discarded", "cleared", "reserved"),
        at_least=500,
    ),
    World(
        name="two endpoints share two slots, dials that nobody waits for, warmed",
        settings=PAIR | {"max_connections": 2},
        endpoints=2,
        waiters=2,
        happens=_happens("warming"),
        at_least=1000,
    ),
    World(
        name="one endpoint, no pool-wide limit, dials that fail",
        settings=PAIR,
        happens=_happens("a second passes", "ask fresh", "dial failed", "discarded"),
        at_least=200,
    ),
    World(
        name="one dial at a time, one kept idle, dials that fail",
        settings=PAIR
        | {"max_connecting_per_endpoint": 1, "min_idle_per_endpoint": 1, "max_idle_time": 4},
        waiters=2,
        happens=_happens("a second passes", "dial failed", "discarded", "swept", "warming"),
        at_least=500,
    ),
    World(
        name="connections that are used up and get old, waiters that give up",
        settings=PAIR
        | {
            "acquire_timeout": 2,
            "max_connection_lifetime": 3,
            "max_connection_uses": 2,
            "max_idle_time": 2,
        },
        waiters=2,
        is_courteous=True,
        happens=_happens("a second passes", "ask impatiently", "dial failed", "swept"),
        at_least=1000,
    ),
    World(
        name="connections that get old while they are checked",
        settings=PAIR | {"max_connection_lifetime": 2, "max_idle_time": 2},
        waiters=2,
        happens=_happens("a second passes", "peer closed", "reserved"),
        at_least=500,
    ),
    World(
        name="tasks that run late",
        settings=PAIR,
        waiters=2,
        is_lazy=True,
        happens=_happens("ask fresh", "cleared", "discarded", "interrupted", "shut"),
        at_least=200,
    ),
    World(
        name="two endpoints share one slot",
        settings=PAIR | {"max_connections": 1},
        endpoints=2,
        is_courteous=True,
        happens=_happens("ask fresh", "cleared", "discarded"),
        at_least=1000,
    ),
    World(
        name="two endpoints share two slots",
        settings=PAIR | {"max_connections": 2},
        endpoints=2,
        is_courteous=True,
        happens=_happens("discarded"),
        at_least=500,
    ),
    World(
        name="two endpoints share two slots, new connections wanted",
        settings=PAIR | {"max_connections": 2},
        endpoints=2,
        waiters=2,
        happens=_happens("ask fresh", "discarded"),
        at_least=500,
    ),
    World(
        name="two endpoints share three slots",
        settings=PAIR | {"max_connections": 3},
        endpoints=2,
        waiters=2,
        is_courteous=True,
        happens=_happens("discarded"),
        at_least=300,
    ),
    World(
        name="two endpoints share two slots, dials fail",
        settings=PAIR | {"max_connections": 2},
        endpoints=2,
        waiters=2,
        happens=_happens("a second passes", "dial failed"),
        at_least=500,
    ),
    World(
        name="two endpoints share two slots, limits change",
        settings=PAIR | {"max_connections": 2},
        endpoints=2,
        waiters=2,
        happens=_happens("discarded", "limit set"),
        at_least=500,
    ),
    World(
        name="two endpoints share two slots, peers hang up",
        settings=PAIR | {"max_connections": 2},
        endpoints=2,
        waiters=2,
        happens=_happens("peer closed", "reserved"),
        at_least=300,
    ),
    World(
        name="two endpoints share two slots, both kept warm",
        settings=PAIR | {"max_connections": 2, "min_idle_per_endpoint": 1},
        endpoints=2,
        waiters=2,
        happens=_happens("swept", "warming"),
        at_least=500,
    ),
    World(
        name="two endpoints share one slot and are forgotten",
        settings=PAIR
        | {
            "acquire_timeout": 3,
            "max_connections": 1,
            "max_idle_time": 3,
            "min_idle_per_endpoint": 1,
        },
        endpoints=2,
        waiters=1,
        happens=_happens("a second passes", "dial failed", "swept"),
        at_least=1000,
    ),
    World(
        name="two endpoints share two slots, tasks run late",
        settings=PAIR | {"max_connections": 2},
        endpoints=2,
        waiters=2,
        is_lazy=True,
        happens=_happens("cleared"),
        at_least=500,
    ),
    World(
        name="two endpoints without a pool-wide limit",
        settings={"max_connections_per_endpoint": 1},
        endpoints=2,
        is_courteous=True,
        happens=_happens("ask fresh", "discarded"),
        at_least=300,
    ),
)

IN_PIECES: Final = (
    World(
        name="one endpoint, a circuit that opens",
        settings=PAIR | {"circuit_breaker": FRAGILE},
        waiters=2,
        happens=_happens("a second passes", "ask fresh", "dial failed"),
        at_least=300,
    ),
    World(
        name="one connection, a queue that sheds load, and is marked",
        settings={"max_connections_per_endpoint": 1, "queue_target_delay": 1},
        waiters=2,
        happens=_happens("a second passes", "marked"),
        at_least=100,
    ),
    World(
        name="one endpoint, connections shared by two",
        settings=PAIR,
        waiters=2,
        shares=True,
        happens=_happens("goes away", "takes one", "takes two"),
        at_least=500,
    ),
    World(
        name="one endpoint, outages",
        settings=PAIR | {"outage_grace": 0},
        waiters=2,
        happens=_happens("a second passes", "ask fresh", "dial failed"),
        at_least=500,
    ),
    World(
        name="one endpoint, cleared and resized",
        settings=PAIR,
        waiters=2,
        is_slow=True,
        happens=_happens("cleared and interrupted", "limit set"),
        at_least=500,
    ),
    World(
        name="one endpoint, told to stop and to go on, with new connections wanted",
        settings=PAIR,
        waiters=2,
        is_courteous=True,
        happens=_happens("ask fresh", "paused", "shut"),
        at_least=500,
    ),
)
"""Worlds that are searched with the smallest pieces of work."""

LARGE_IN_PIECES: Final = (
    World(
        name="two endpoints share one slot, told to stop and to go on",
        settings={"max_connections_per_endpoint": 1, "max_connections": 1},
        endpoints=2,
        waiters=2,
        happens=_happens("paused"),
        at_least=500,
    ),
)
"""As `IN_PIECES`, for those who have time."""

LARGE: Final = (
    World(
        name="one endpoint, a circuit, connections that die early, protocols that report",
        settings=PAIR | {"circuit_breaker": BREAKER},
        waiters=2,
        happens=_happens(
            "a second passes", "dial failed", "failure reported", "lost early", "success reported"
        ),
        at_least=2000,
    ),
    World(
        name="one endpoint, two trials, three waiters",
        settings=PAIR | {"circuit_breaker": FRAGILE},
        is_slow=True,
        happens=_happens("a second passes", "cleared", "dial failed", "failed here"),
        at_least=2000,
    ),
    World(
        name="two endpoints with circuits share two slots",
        settings=PAIR | {"circuit_breaker": BREAKER, "max_connections": 2},
        endpoints=2,
        waiters=2,
        happens=_happens("a second passes", "dial failed"),
        at_least=10_000,
    ),
    World(
        name="one connection, a queue that sheds load, waiters that give up",
        settings={"max_connections_per_endpoint": 1, "queue_target_delay": 1},
        happens=_happens("a second passes", "ask impatiently", "discarded"),
        at_least=3000,
    ),
    World(
        name="one endpoint and all that it can be told, three waiters",
        settings=PAIR,
        is_courteous=True,
        happens=SMALL[0].happens | {"warming"},
        at_least=10_000,
    ),
    World(
        name="one dial at a time, one kept idle, all that it can be told",
        settings=PAIR
        | {"max_connecting_per_endpoint": 1, "min_idle_per_endpoint": 1, "max_idle_time": 3},
        waiters=2,
        is_courteous=True,
        happens=_happens(
            "a second passes", "ask fresh", "cleared", "dial failed", "limit set", "paused", "swept"
        ),
        at_least=10_000,
    ),
    World(
        name="two endpoints share two slots, three waiters and all that they can be told",
        settings=PAIR | {"max_connections": 2},
        endpoints=2,
        waiters=2,
        happens=_happens("cleared", "discarded", "limit set", "paused", "warming"),
        at_least=50_000,
    ),
    World(
        name="two endpoints share two slots, three waiters, dials fail, new connections wanted",
        settings=PAIR | {"max_connections": 2, "max_connecting_per_endpoint": 1},
        endpoints=2,
        happens=_happens("a second passes", "ask fresh", "dial failed"),
        at_least=5000,
    ),
    World(
        name="two endpoints share three slots, three waiters",
        settings=PAIR | {"max_connections": 3},
        endpoints=2,
        is_courteous=True,
        happens=_happens("ask fresh", "cleared", "discarded"),
        at_least=20_000,
    ),
    World(
        name="two endpoints share two slots, connections get old, waiters give up",
        settings=PAIR
        | {
            "acquire_timeout": 3,
            "max_connection_lifetime": 3,
            "max_connections": 2,
            "max_idle_time": 2,
        },
        endpoints=2,
        waiters=2,
        happens=_happens("a second passes", "ask impatiently", "dial failed", "swept"),
        at_least=20_000,
    ),
    World(
        name="two endpoints share one slot, four waiters",
        settings=PAIR | {"max_connections": 1},
        endpoints=2,
        waiters=4,
        is_courteous=True,
        happens=_happens("ask fresh", "discarded"),
        at_least=2000,
    ),
)

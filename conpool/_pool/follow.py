"""Follows servers that move: leaves the addresses to which an endpoint no longer leads."""

from __future__ import annotations

from collections.abc import Collection
from operator import attrgetter
from typing import cast, final

import trio
from trio.lowlevel import enable_ki_protection

from conpool._connection.pooled import PooledSub
from conpool._dial.address import spell
from conpool._engine.engine import Engine
from conpool._extend.connector import Connector
from conpool._values.config_error import named
from conpool._values.endpoint import UnixEndpoint

_LONGEST = 30.0
"""How long to wait for one endpoint's addresses, in seconds, if `connect_timeout` is longer."""

_BATCH = 100
"""Endpoints or addresses between two checkpoints: 5 ms, at 50 µs for the task of an endpoint."""


@final
class Follower:
    """Asks the connector every `interval` seconds where the endpoints lead."""

    def __init__(self, engine: Engine, connector: Connector, interval: float) -> None:
        self._engine = engine
        self._connector = connector
        self._interval = interval

    @enable_ki_protection
    async def follow(self) -> None:
        """Ask about all endpoints, round after round, for as long as the pool is open."""
        if type(self._connector).addresses is Connector.addresses:
            return  # this connector never knows
        while True:
            await trio.sleep(self._interval)
            async with trio.open_nursery() as nursery:
                for number, sub in enumerate(list(self._engine.core.subs.values()), 1):
                    if number % _BATCH == 0:
                        await trio.lowlevel.checkpoint()
                    if _may_have_moved(sub):
                        name = f"conpool look-up of {sub.endpoint}"
                        nursery.start_soon(self._ask, sub, name=name)

    @enable_ki_protection
    async def _ask(self, sub: PooledSub) -> None:
        addresses: frozenset[str] | None = None
        try:
            # Bounded, so that an endpoint whose look-up hangs does not delay the next round.
            with trio.move_on_after(min(sub.config.connect_timeout, _LONGEST)):
                addresses = await _spell_all(await self._connector.addresses(sub.endpoint))
        except Exception as error:  # noqa: BLE001 - a connector of the user's own may raise anything
            log = self._engine.log.about(sub.endpoint)
            log.note("cannot tell where %s leads now", sub.endpoint, error=error)
        # Asked again, because the core may have dropped `sub` during the look-up.
        if addresses and _may_have_moved(sub):
            self._engine.report(self._engine.core.orders.moved, sub, addresses)


async def _spell_all(addresses: object) -> frozenset[str] | None:
    """Return the addresses as `getpeername` spells them, and refuse what are none.

    A connector of the user's own may return anything. Taken at its word, it would have all
    connections closed, again and again.
    """
    if addresses is None:
        return None
    if isinstance(addresses, str | bytes) or not isinstance(addresses, Collection):
        raise TypeError(f"addresses() must return a frozenset, not {named(addresses)}")
    spelled: set[str] = set()
    for number, one in enumerate(cast("Collection[object]", addresses), 1):
        ip = spell(one)
        if ip is None:
            raise ValueError("addresses() returned something that is no IP address")
        spelled.add(ip)
        if number % _BATCH == 0:
            await trio.lowlevel.checkpoint()
    return frozenset(spelled)


def _may_have_moved(sub: PooledSub) -> bool:
    """Whether a connection leads to an IP address that the endpoint does not spell out itself."""
    endpoint = sub.endpoint
    host = None if isinstance(endpoint, UnixEndpoint) else (endpoint.proxy or endpoint).host
    return not {None, host}.issuperset(map(attrgetter("address"), sub.limit.borrowers))

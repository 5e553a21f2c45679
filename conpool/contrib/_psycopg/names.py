"""From connection parameters to the attempts that they ask for, as psycopg makes them.

Each host, and each address of each name, is an attempt of its own. psycopg asks asyncio for the
addresses; here they come from conpool's own look-ups, which are limited, shared, and can be
abandoned.
"""

from __future__ import annotations

import logging
from ipaddress import ip_address
from random import shuffle
from typing import Final

import psycopg
import trio
from psycopg.abc import ConnDict, ConnMapping

from conpool._dial.address import Address
from conpool._dial.name_cache import NameCache
from conpool._dial.progress import note_phase
from conpool.contrib._psycopg.inside import get_param, split_attempts

_log: Final = logging.getLogger("conpool")

NAME_TTL: Final = 1.0
"""How long the addresses of a name are used again, in seconds: for a crowd that dials at once.

An older answer serves only while the resolver is down or slow.
"""

_DEFAULT_PORT: Final = 5432

_names: Final[trio.lowlevel.RunVar[NameCache]] = trio.lowlevel.RunVar("conpool_psycopg_names")


async def find_attempts(params: ConnMapping) -> list[ConnDict]:
    """Return the parameters of one attempt after the other, with addresses for all names.

    Hosts without an address are left out.

    Raises:
        psycopg.OperationalError: No host has an address, or the lists of hosts, addresses and
            ports differ in length.

    Cancelling it takes nothing from others who look up the same name.
    """
    params = dict(params)
    prefers_standby = get_param(params, "target_session_attrs") == "prefer-standby"
    if prefers_standby:
        params.pop("target_session_attrs", None)
    attempts: list[ConnDict] = []
    failure: psycopg.OperationalError | None = None
    for attempt in split_attempts(params):
        try:
            attempts += await _with_addresses(attempt)
        except OSError as error:
            host = get_param(attempt, "host")
            failure = psycopg.OperationalError(f"failed to resolve host {host!r}: {error}")
            failure.__cause__ = error
            _log.debug("%s", failure)
    if not attempts and failure is not None:
        raise failure
    if get_param(params, "load_balance_hosts") == "random":
        shuffle(attempts)
    if prefers_standby:
        standbys: list[ConnDict] = [{**a, "target_session_attrs": "standby"} for a in attempts]
        return standbys + attempts
    return attempts


async def _with_addresses(attempt: ConnDict) -> list[ConnDict]:
    host = get_param(attempt, "host")
    if not host or host.startswith(("/", "@")) or host[1:2] == ":":  # a path, maybe with a drive
        return [attempt]
    if get_param(attempt, "hostaddr"):
        return [attempt]
    if _is_address(host):
        return [{**attempt, "hostaddr": host}]
    note_phase("resolve")
    port = get_param(attempt, "port") or ""
    answer = await _cache().resolve(host, int(port) if port.isdecimal() else _DEFAULT_PORT)
    note_phase("open")
    return [{**attempt, "hostaddr": _spell(address)} for address in answer.addresses]


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _spell(address: Address) -> str:
    return f"{address.ip}%{address.scope_id}" if address.scope_id else address.ip


def _cache() -> NameCache:
    try:
        return _names.get()
    except LookupError:
        cache = NameCache(ttl=NAME_TTL)
        _names.set(cache)
        return cache

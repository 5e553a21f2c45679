"""The cases by name. Each can run in a process of its own."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final, TypeAlias

import trio

from .budget import measure_budget
from .closing import measure_closing
from .dials import measure_burst, measure_evictions
from .exporters import measure_exporters
from .growth import measure_growth, measure_masses
from .http import measure_http
from .lease import measure_contended, measure_uncontended
from .measure import Scale, Table
from .memory import measure_memory, measure_passing, measure_waiting
from .options import measure_options
from .outages import measure_outages
from .psycopg import measure_psycopg
from .queue import measure_cancelling, measure_fairness, measure_handover
from .redis import measure_redis
from .requests import measure_requests
from .sessions import measure_sessions
from .steps import measure_steps

Case: TypeAlias = Callable[[Scale], Table]


def _in_trio(measure: Callable[[Scale], Awaitable[Table]]) -> Case:
    return lambda scale: trio.run(measure, scale)


CASES: Final[dict[str, Case]] = {
    "uncontended": _in_trio(measure_uncontended),
    "budget": _in_trio(measure_budget),
    "options": _in_trio(measure_options),
    "contended": _in_trio(measure_contended),
    "exporters": _in_trio(measure_exporters),
    "sessions": _in_trio(measure_sessions),
    "growth": measure_growth,
    "masses": measure_masses,
    "handover": measure_handover,
    "cancelling": _in_trio(measure_cancelling),
    "fairness": _in_trio(measure_fairness),
    "evictions": measure_evictions,
    "burst": _in_trio(measure_burst),
    "closing": _in_trio(measure_closing),
    "steps": measure_steps,
    "outages": _in_trio(measure_outages),
    "requests": _in_trio(measure_requests),
    "http": measure_http,
    "redis": measure_redis,
    "psycopg": measure_psycopg,
    "memory": _in_trio(measure_memory),
    "waiting": _in_trio(measure_waiting),
    "passing": _in_trio(measure_passing),
}


def measure(name: str, scale: Scale) -> Table:
    """Run one case."""
    # The pools say that there are many of them.
    logging.getLogger("conpool").addHandler(logging.NullHandler())
    return CASES[name](scale)


def measure_apart(name: str, scale: Scale) -> Table:
    """Run one case in a process of its own: what others leave of the memory would slow it down."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(measure, name, scale).result()

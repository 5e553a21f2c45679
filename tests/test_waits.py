"""No wait without an end (G17b): each wait of the pool stands here with what ends it.

A wait is whatever a cancellation cannot end (a shield), and whatever sleeps until somebody else
does something. A new one fails the test until it has its line, and its line says what ends it. The
command line and the tools for tests have no part in this.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import conpool

ROOT = Path(conpool.__file__).parent

SLEEPS = {
    "acquire",
    "acquire_on_behalf_of",
    "aclose",
    "cancel_shielded_checkpoint",
    "connect",
    "open_nursery",
    "park",
    "park_warmer",
    "run_sync",
    "sleep",
    "sleep_forever",
    "start",
    "wait",
    "wait_readable",
    "wait_task_rescheduled",
    "wait_writable",
}
"""Calls that may last: those of trio, and those of the pool that pass them on."""

# File, function, call; how often, if more than once; then what ends the wait.
WAITS = """
_connection/closing close_gracefully shield+deadline: its deadline, `close_timeout`
_connection/closing close_by_force shield+deadline: its deadline, `close_timeout`
_connection/closing close_gracefully aclose 2: the shield has a deadline, or is cancelled at once
_connection/closing close_gracefully shield: it is cancelled at once
_connection/exchange ExchangeStream.aclose aclose: only code before the first lease calls it
_connection/idle_watch IdleWatch.wait sleep_forever: the pool's end cancels the background
_connection/idle_watch IdleWatch.wait wait_readable: the pool's end cancels the background
_dial/dial _connect connect: `connect_timeout`, in `open_link`
_dial/dial _connect_natively connect: `connect_timeout`, in `open_link`
_engine/attendant Attendant._wait_until_alone wait: the shield around it, `close_timeout`
_engine/background Background._keep_doing sleep: a tenth of a second
_dial/lookup Lookups._ask_system wait: the resolver's thread ends; `connect_timeout` before that
_dial/name_cache NameCache._wait wait: the task that asks ends, whatever comes of it
_dial/places Places._take_ordinary acquire_on_behalf_of: its deadline, when a place becomes late
_dial/places Places.take acquire_on_behalf_of: `connect_timeout`, in `open_link`
_dial/race _Race.run open_nursery: every attempt is inside `connect_timeout`
_dial/race _Race.run wait: its deadline, `happy_eyeballs_delay`; a dial has `connect_timeout`
_dial/tcp _meet connect: `connect_timeout`, in `open_link`
_dial/unix _connect_once connect: the system answers at once
_dial/unix connect_unix sleep: `connect_timeout`, in `open_link`
_engine/background Background._keep_time sleep_forever: its deadline, and the pool's end
_engine/background Background.run shield: the pool's end cancels its scope
_engine/background Background.run open_nursery: every task in it ends when that scope is cancelled
_lending/acquire Acquirer._obtain park: `acquire_timeout`, by a row in the timetable
_lending/acquire Acquirer._wait park: `acquire_timeout`, by a row in the timetable
_lending/lease Connection.__aexit__ aclose: it ends a lease, and waits for nothing
_lending/waiting park wait_task_rescheduled: `acquire_timeout`, by a row in the timetable
_lending/waiting park_warmer wait_task_rescheduled: dials end, others give back, `resume`; no own
_pool/follow Follower.follow sleep: the pool's end cancels the background
_pool/follow Follower.follow open_nursery: each look-up has a deadline of 30 s at most
_pool/lifecycle Lifecycle._close cancel_shielded_checkpoint: one for each piece of the end
_pool/lifecycle Lifecycle._end shield+deadline 2: `close_timeout` and a margin, twice
_pool/lifecycle Lifecycle._end wait: each task of the background is cancelled or has a deadline
_pool/lifecycle Lifecycle._interrupt cancel_shielded_checkpoint: one for each piece of the end
_pool/lifecycle Lifecycle._wait_for_end cancel_shielded_checkpoint: one for each piece of the end
_pool/lifecycle Lifecycle._wait_for_end park: `shutdown_grace`, then the shield's deadline
_pool/lifecycle Lifecycle.close wait: the task that closes is bounded itself
_pool/lifecycle Lifecycle.open shield: two ticks
_pool/lifecycle Lifecycle.open open_nursery: its only child is the background
_pool/lifecycle Lifecycle.open start: two ticks
_pool/pool ConnectionPool.acquire acquire: `acquire_timeout`, as `Acquirer._obtain`
_pool/reap Reaper.reap sleep: the pool's end cancels the background
_pool/reap Reaper.watch wait: the pool's end cancels the background
_pool/steering Steering._clear_and_wait park: the leases of others end, each close in \
  `close_timeout`; no own
_pool/steering Steering._wait_until_closed park: within `over` the time of each has come; then as \
  `_clear_and_wait`
_pool/steering Steering.warm park_warmer: dials end, others give back, `resume`; no own
"""


def find_waits(path: Path) -> Iterator[str]:
    """File, function and kind of each wait in a file."""
    where = str(path.relative_to(ROOT).with_suffix(""))

    def look(node: ast.AST, function: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            inside = function
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                inside = f"{function}.{child.name}".lstrip(".")
            if isinstance(child, ast.Call):
                named = child.func
                name = named.attr if isinstance(named, ast.Attribute) else None
                name = named.id if isinstance(named, ast.Name) else name
                given = {keyword.arg for keyword in child.keywords}
                if "shield" in given:
                    yield f"{where} {function} shield{'+deadline' * ('deadline' in given)}"
                if name in SLEEPS and (isinstance(node, AWAITED) or name in NEVER_AWAITED):
                    yield f"{where} {function} {name}"
            elif isinstance(child, ast.Attribute) and child.attr == "shield":
                yield f"{where} {function} shield"
            yield from look(child, inside)

    return look(ast.parse(path.read_text("utf-8")), "")


AWAITED = (ast.Await, ast.withitem)
NEVER_AWAITED = {"wait_task_rescheduled", "open_nursery"}
"""They count where they are called: somebody else awaits or enters what they return."""


def test_f142_g17b_each_wait_stands_in_the_table_with_what_ends_it() -> None:
    found = Counter(wait for path in ROOT.glob("_*/*.py") for wait in find_waits(path))
    known: Counter[str] = Counter()
    for line in WAITS.strip().splitlines():
        wait, _, end = line.partition(": ")
        *place, last = wait.split()
        is_counted = last.isdigit()
        name = " ".join(place) if is_counted else wait
        assert end, f"{name} has no end"
        assert name not in known, f"{name} stands here twice"
        known[name] = int(last) if is_counted else 1
    assert found == known, f"new: {dict(found - known)}; gone: {dict(known - found)}"

"""`conpool top`: the pools of a running service, in a table that is live in a terminal."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from itertools import count
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from conpool._stats.report import duration
from conpool.cli._screen import plain
from conpool.cli._top_source import Source, Unreachable

_ROWS: Final = 20
"""Endpoints of each pool where there is no terminal to fill."""

_CHROME: Final = 3
"""Lines that a pool has besides its endpoints: a title, a header, and how many more there are."""

_HEADER: Final = ("active", "idle", "waiting", "oldest", "p99", "leases/s", "errors")


def run(options: Namespace) -> int:
    """Show the pools; return 0, or 1 if the service cannot be reached, or 2 for a bad URL."""
    console = Console()
    is_live = console.is_terminal and not console.is_dumb_terminal and not options.json
    try:
        source = Source(options.url)
    except ValueError as error:
        print(f"conpool top: error: {error}", file=sys.stderr)
        return 2
    looks = range(options.count) if options.count else count() if is_live else range(1)
    view = View(source, options, console)
    try:
        if is_live:
            with Live(console=console, auto_refresh=False, screen=not options.count) as live:
                for _ in _paced(looks, options.interval):
                    live.update(view.draw(), refresh=True)
        else:
            for _ in _paced(looks, options.interval):
                view.print(as_json=options.json)
    except Unreachable as error:
        print(f"conpool top: {error}", file=sys.stderr)
        return 1
    return 0


def _paced(looks: Any, interval: float) -> Iterator[None]:
    for number in looks:
        if number:
            time.sleep(interval)
        yield


class View:
    """Asks for the numbers and shows them, with what has happened since the last look."""

    def __init__(self, source: Source, options: Namespace, console: Console) -> None:
        self._source = source
        self._options = options
        self._console = console
        self._last: dict[str, Any] | None = None
        self._answered_at = 0.0

    def print(self, *, as_json: bool) -> None:
        """Print the numbers once.

        Raises:
            Unreachable: The service does not give them.
        """
        rows = self._options.rows or _ROWS
        numbers = self._source.fetch(rows, self._options.sort, self._options.match)
        if as_json:
            print(json.dumps(numbers), flush=True)
        else:
            for pool in self._draw_pools(numbers):
                self._console.print(pool)
            sys.stdout.flush()
        self._last = numbers

    def draw(self) -> Group:
        """Return the numbers of now, or those of before with the reason why there are no others.

        Raises:
            Unreachable: There have been none so far.
        """
        pools = len(self._last["pools"]) if self._last else 1
        fitting = max(1, (self._console.height - 1) // max(1, pools) - _CHROME)
        rows = self._options.rows or fitting
        try:
            numbers = self._source.fetch(rows, self._options.sort, self._options.match)
        except Unreachable as error:
            if self._last is None:
                raise
            ago = duration(time.monotonic() - self._answered_at)
            warning = Text(f"no answer for {ago}: {error}", style="bold red")
            return Group(*self._draw_pools(self._last), warning)
        self._answered_at = time.monotonic()
        hint = Text("" if self._options.count else "Ctrl-C ends", style="dim")
        drawn = Group(*self._draw_pools(numbers), hint)
        self._last = numbers
        return drawn

    def _draw_pools(self, numbers: dict[str, Any]) -> Iterator[Group]:
        before = self._last or {"at": 0.0, "pools": []}
        since = {one["id"]: one for pool in before["pools"] for one in pool["endpoints"]}
        seconds = numbers["at"] - before["at"] if since else 0.0
        for pool in numbers["pools"]:
            limit = "" if pool["limit"] is None else f" of {pool['limit']:,}"
            title = Text(plain(pool["name"]), style="bold")
            title.append(
                f"  {pool['state']}, {pool['active']:,} active{limit}, {pool['idle']:,} idle,"
                f" {pool['waiting']:,} waiting, {pool['acquire_timeouts']:,} timed out",
                style="not bold",
            )
            has_status = any(one["status"] != "ok" for one in pool["endpoints"])
            table = _make_table(has_status=has_status)
            for one in pool["endpoints"]:
                table.add_row(*_cells(one, since.get(one["id"]), seconds, has_status=has_status))
            shown, matching = len(pool["endpoints"]), pool["matching"]
            rest = Text(f"{matching - shown:,} more endpoints" if matching > shown else "")
            yield Group(title, table, rest)


def _make_table(*, has_status: bool) -> Table:
    table = Table(box=None, expand=True, padding=(0, 0, 0, 1), header_style="dim")
    table.add_column("endpoint", no_wrap=True, overflow="ellipsis", ratio=1)
    for name in (*_HEADER, *(["status"] if has_status else [])):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cells(
    one: dict[str, Any], before: dict[str, Any] | None, seconds: float, *, has_status: bool
) -> Iterator[Text]:
    mark = {"failing": "bold red", "unhealthy": "yellow", "paused": "yellow"}.get(one["status"], "")
    yield Text(plain(one["endpoint"]), style=mark)
    yield Text(f"{one['active']:,}/{one['limit']:,}")
    yield Text(f"{one['idle']:,}")
    waiting = "bold red" if one["waiting"] else ""
    yield Text(f"{one['waiting']:,}", style=waiting)
    yield Text(duration(one["oldest_wait"] or 0.0), style=waiting)
    waits = one["wait_time"]
    yield Text(duration(waits["p99"]) if waits["count"] else "-")
    if before is None or seconds <= 0:
        yield Text("-")
    else:
        yield Text(f"{max(0, one['acquired'] - before['acquired']) / seconds:,.3g}")
    yield Text(f"{one['errors']:,}")
    if has_status:
        yield Text(plain(one["status"]), style=mark)

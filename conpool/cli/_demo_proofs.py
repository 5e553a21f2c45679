"""The demo's tests, one function for each promise.

Each uses real connections to a real server. It returns one line about what it found, and raises
`BrokenPromise` if the promise did not hold.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import trio

import conpool
from conpool.cli._demo_server import (
    LOOPBACK,
    BadReply,
    DemoServer,
    How,
    ask,
    read_answers,
    send_request,
)
from conpool.cli._demo_sockets import Witness, find_witness

Advance: TypeAlias = Callable[[], None]
Pool: TypeAlias = conpool.ConnectionPool[None]

REQUESTS: Final = 100
TASKS: Final = 200
LIMIT: Final = 10

_OUTAGE: Final = 0.3
"""Seconds that the restarting server is away, so that it misses several dials."""

_RECOVERY: Final = 5.0
"""Seconds within which the pool must serve its callers again after the restart."""

_PATIENCE: Final = 0.01
"""Seconds that a caller waits for the rest of a reply before it gives up."""


class BrokenPromise(Exception):
    """A promise did not hold; the message says how."""


@dataclass(frozen=True, slots=True)
class Site:
    """A running server, and how a client reaches it."""

    server: DemoServer
    endpoint: conpool.Endpoint

    @property
    def name(self) -> str:
        """Its name in the demo."""
        return "TLS" if self.endpoint.tls else "plain"


async def prove_speed(pool: Pool, site: Site, advance: Advance) -> str:
    """Send a hundred requests on fresh connections, and a hundred over the pool.

    The pool must be faster, and open no more than one connection.
    """
    fresh = await _time_requests(functools.partial(_ask_afresh, site), advance)
    accepted = site.server.accepted
    pooled = await _time_requests(functools.partial(_ask_pooled, pool, site), advance)
    opened = site.server.accepted - accepted
    if opened > 1:
        raise BrokenPromise(f"the pool opened {opened} connections for one request after the other")
    if pooled >= fresh:
        raise BrokenPromise(f"{pooled:.3f} s over the pool, {fresh:.3f} s on fresh connections")
    return (
        f"{fresh * 1000:.0f} ms on fresh connections, {pooled * 1000:.0f} ms over the pool: "
        f"{fresh / pooled:.1f} times as fast"
    )


async def _time_requests(request: Callable[[int], Awaitable[None]], advance: Advance) -> float:
    """Return the seconds that the requests took, without the drawing of the bar."""
    spent = 0.0
    for number in range(REQUESTS):
        started = time.perf_counter()
        await request(number)
        spent += time.perf_counter() - started
        advance()
    return spent


async def _ask_afresh(site: Site, number: int) -> None:
    async with await _connect(site) as stream:
        _compare(await ask(stream, number), number)


async def _connect(site: Site) -> trio.abc.Stream:
    stream = await trio.open_tcp_stream(LOOPBACK, site.endpoint.port)
    if site.endpoint.tls is None:
        return stream
    return trio.SSLStream(stream, site.endpoint.tls.context, server_hostname=LOOPBACK)


async def _ask_pooled(pool: Pool, site: Site, number: int) -> None:
    async with pool.connection(site.endpoint) as conn:
        _compare(await ask(conn, number), number)


def _compare(answers: list[int], wanted: int) -> None:
    if answers != [wanted]:
        raise BrokenPromise(f"asked for {wanted}, and read {answers}")


async def prove_limit(pool: Pool, site: Site, advance: Advance) -> str:
    """Let 200 tasks share ten connections, and count the sockets at every turn of the loop.

    The largest count must be the limit. Every tenth task retires its connection, so that the pool
    keeps dialling.
    """
    watch = _Watch(find_witness(site.server))

    async def lease(number: int) -> None:
        async with pool.connection(site.endpoint) as conn:
            _compare(await ask(conn, number, "soon"), number)
            if number % 10 == 0:
                conn.retire()
        advance()

    async with trio.open_nursery() as watching:
        watching.start_soon(watch.look_on)
        async with trio.open_nursery() as leasing:
            for number in range(TASKS):
                leasing.start_soon(lease, number)
        watching.cancel_scope.cancel()

    if watch.most != LIMIT:
        raise BrokenPromise(
            f"{watch.most} client sockets were open at once, by {watch.witness.name}"
        )
    return (
        f"never more than {watch.most} client sockets in {watch.looks:,} looks "
        f"at {watch.witness.name}"
    )


@dataclass(slots=True)
class _Watch:
    """Remembers the most sockets that a witness counted."""

    witness: Witness
    looks: int = 0
    most: int = 0

    async def look_on(self) -> None:
        """Count at every turn of the loop, until cancelled."""
        while True:
            self.most = max(self.most, self.witness.count())
            self.looks += 1
            await trio.lowlevel.checkpoint()


@dataclass(slots=True)
class _Log:
    """What happened to the tasks before, while and after their server was away."""

    busy: trio.Event = field(default_factory=trio.Event)  # set after enough leases
    back_at: float | None = None
    leases_before: int = 0
    leases_after: int = 0
    errors_meanwhile: int = 0
    errors_after: list[str] = field(default_factory=list[str])

    def note_lease(self, started_at: float) -> None:
        if self.is_back_by(started_at):
            self.leases_after += 1
        else:
            self.leases_before += 1
            if self.leases_before == REQUESTS:
                self.busy.set()

    def note_error(self, started_at: float, where: str, error: Exception) -> None:
        if self.is_back_by(started_at):
            self.errors_after.append(f"{where}: {error!r}")
        else:
            self.errors_meanwhile += 1

    def is_back_by(self, instant: float) -> bool:
        return self.back_at is not None and instant >= self.back_at


async def prove_restart(pool: Pool, advance: Advance) -> str:
    """Kill the server of twenty busy tasks, and start it again.

    Once it is back, the pool must serve the tasks, and no task may see an error.
    """
    log = _Log()
    server = DemoServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        endpoint = conpool.Endpoint(LOOPBACK, server.port)
        async with trio.open_nursery() as working:
            for _ in range(2 * LIMIT):
                working.start_soon(_work, pool, endpoint, log, advance)
            await log.busy.wait()
            await server.stop()
            await trio.sleep(_OUTAGE)
            await nursery.start(server.run)
            log.back_at = trio.current_time()
            working.cancel_scope.deadline = log.back_at + _RECOVERY
        nursery.cancel_scope.cancel()
    if log.errors_after:
        raise BrokenPromise(f"the server was back, and yet {log.errors_after[0]}")
    if log.leases_after < REQUESTS:
        raise BrokenPromise(
            f"{log.leases_after} leases in the {_RECOVERY} s after the server was back"
        )
    return (
        f"{log.leases_before} leases, then {log.errors_meanwhile} errors while it was away, "
        f"then {log.leases_after} leases and no error"
    )


async def _work(pool: Pool, endpoint: conpool.Endpoint, log: _Log, advance: Advance) -> None:
    """Take lease after lease, until enough of them have begun after the restart."""
    number = 0
    while log.leases_after < REQUESTS:
        number += 1
        started_at = trio.current_time()
        where = "acquire"
        try:
            async with pool.connection(endpoint) as conn:
                where = "request"
                _compare(await ask(conn, number, "soon"), number)
        except (conpool.PoolError, trio.BrokenResourceError, BadReply) as error:
            log.note_error(started_at, where, error)
            await trio.sleep(_PATIENCE)
        else:
            log.note_lease(started_at)
            advance()


ABANDONED: Final[tuple[tuple[How, bool], ...]] = (
    ("late", False),
    ("late", True),
    ("half", False),
    ("half", True),
)
"""When a caller gives up (before or in the middle of the reply), and whether it hides that."""


async def prove_clean_handover(pool: Pool, site: Site, advance: Advance) -> str:
    """Cancel tasks in mid-reply; the next task must read its own reply.

    The server sends the rest of the old reply only after the next request, so that no probe before
    that can find it. Half of the tasks swallow the time-out inside their block. A plain list of
    connections must fail this test; otherwise the test proves nothing.
    """
    # Leave the pool no connection but those of the tasks below.
    pool.close_idle(site.endpoint)
    for number, (how, swallow) in enumerate(ABANDONED, start=1):
        site.server.gate = trio.Event()
        await _abandon_lease(pool, site.endpoint, 1000 + number, how, swallow=swallow)
        async with pool.connection(site.endpoint) as conn:
            _compare(await _ask_the_next(conn, site.server, 2000 + number), 2000 + number)
        advance()
    misled = await _ask_over_a_list(site)
    return f"each next task read its own answer (over a plain list of streams: {misled})"


async def _abandon_lease(
    pool: Pool, endpoint: conpool.Endpoint, number: int, how: How, *, swallow: bool
) -> None:
    with trio.CancelScope() as outer:
        async with pool.connection(endpoint) as conn:
            with trio.CancelScope() as inner:
                await _abandon(conn, number, how, inner if swallow else outer)


async def _abandon(stream: trio.abc.Stream, number: int, how: How, scope: trio.CancelScope) -> None:
    """Ask for a number, and run into a time-out where the reply stops."""
    await send_request(stream, number, how)
    if how == "half":
        await stream.receive_some()
    scope.deadline = trio.current_time() + _PATIENCE
    await stream.receive_some()


async def _ask_the_next(stream: trio.abc.Stream, server: DemoServer, number: int) -> list[int]:
    await send_request(stream, number)
    server.gate.set()
    try:
        return await read_answers(stream)
    except (BadReply, trio.BrokenResourceError) as error:
        raise BrokenPromise(f"asked for {number}, and got {error!r}") from error


async def _ask_over_a_list(site: Site) -> str:
    """Do the same over the simplest pool there is, and say what the next caller read."""
    idle = [await _connect(site)]
    site.server.gate = trio.Event()
    stream = idle.pop()
    with trio.CancelScope() as scope:
        await _abandon(stream, 1, "late", scope)
    idle.append(stream)
    async with idle.pop() as stream:
        answers = await _ask_the_next(stream, site.server, 2)
    if answers == [2]:
        raise BrokenPromise(
            "even a plain list of streams read the right answer: this proves nothing"
        )
    return f"asked for 2, read {answers[0]}"

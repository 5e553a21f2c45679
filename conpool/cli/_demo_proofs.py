"""What the demo puts to the test, one function for each promise.

Each drives real connections to a real server, returns one line that says what was found, and
raises `NotSo` if the promise did not hold.
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
"""Seconds that the restarting server is away: time for several dials to be refused."""

_RECOVERY: Final = 5.0
"""Seconds after which a pool that still serves nobody has not recovered."""

_PATIENCE: Final = 0.01
"""Seconds that a caller waits for the rest of a reply before it gives up."""


class NotSo(Exception):
    """A promise did not hold; the message says which way."""


@dataclass(frozen=True, slots=True)
class Site:
    """A running server, and how a client reaches it."""

    server: DemoServer
    endpoint: conpool.Endpoint

    @property
    def name(self) -> str:
        """How the demo calls it."""
        return "TLS" if self.endpoint.tls else "plain"


async def prove_speed(pool: Pool, site: Site, advance: Advance) -> str:
    """Send a hundred requests on fresh connections, and a hundred over the pool.

    Raises:
        NotSo: The pool was no faster, or opened more than one connection.
    """
    fresh = await _time_requests(functools.partial(_ask_afresh, site), advance)
    accepted = site.server.accepted
    pooled = await _time_requests(functools.partial(_ask_pooled, pool, site), advance)
    opened = site.server.accepted - accepted
    if opened > 1:
        raise NotSo(f"the pool opened {opened} connections for requests that came one by one")
    if pooled >= fresh:
        raise NotSo(f"{pooled:.3f} s over the pool, {fresh:.3f} s on fresh connections")
    return (
        f"{fresh * 1000:.0f} ms on fresh connections, {pooled * 1000:.0f} ms over the pool: "
        f"{fresh / pooled:.1f} times as fast"
    )


async def _time_requests(request: Callable[[int], Awaitable[None]], advance: Advance) -> float:
    """Seconds that the requests took; drawing the bar between them does not count."""
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
        raise NotSo(f"asked for {wanted}, and read {answers}")


async def prove_limit(pool: Pool, site: Site, advance: Advance) -> str:
    """Let 200 tasks share ten connections, and count the sockets at every turn of the loop.

    Every tenth task has its connection closed, so that others are dialled all the while.

    Raises:
        NotSo: There were more sockets than the limit allows, or never as many.
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
        raise NotSo(f"{watch.most} client sockets were open at once, by {watch.witness.name}")
    return (
        f"never more than {watch.most} client sockets in {watch.looks:,} looks "
        f"at {watch.witness.name}"
    )


@dataclass(slots=True)
class _Watch:
    """The most sockets that a witness ever counted."""

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
    """What the tasks lived through while their server restarted; `busy` once they are at work."""

    busy: trio.Event = field(default_factory=trio.Event)
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
    """Kill the server under twenty busy tasks, and start it again.

    Raises:
        NotSo: After the server was back, somebody saw an error, or was not served at all.
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
        raise NotSo(f"the server was back, and yet {log.errors_after[0]}")
    if log.leases_after < REQUESTS:
        raise NotSo(f"{log.leases_after} leases in the {_RECOVERY} s after the server was back")
    return (
        f"{log.leases_before} leases, then {log.errors_meanwhile} errors while it was away, "
        f"then {log.leases_after} leases and no error"
    )


async def _work(pool: Pool, endpoint: conpool.Endpoint, log: _Log, advance: Advance) -> None:
    """Lease after lease, until enough of them were begun after the restart."""
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
"""When a caller gives up (before the reply, in its middle), and whether it hides that."""


async def prove_clean_handover(pool: Pool, site: Site, advance: Advance) -> str:
    """Cancel tasks in mid-reply, and see what the next one reads.

    The old reply is sent on only after the next request has gone out: no look at the socket
    before that could tell. Half of the tasks swallow the time-out inside their block.

    Raises:
        NotSo: Somebody read what was not theirs; or a pool that does no more than keep
            connections in a list passed too, and nothing was proved.
    """
    # From here on, what the last caller left is all that the next can get.
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
    """Ask for a number, and run into a time-out where the reply stops for now."""
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
        raise NotSo(f"asked for {number}, and got {error!r}") from error


async def _ask_over_a_list(site: Site) -> str:
    """Do the same over the simplest pool there is, and say what came of it."""
    idle = [await _connect(site)]
    site.server.gate = trio.Event()
    stream = idle.pop()
    with trio.CancelScope() as scope:
        await _abandon(stream, 1, "late", scope)
    idle.append(stream)
    async with idle.pop() as stream:
        answers = await _ask_the_next(stream, site.server, 2)
    if answers == [2]:
        raise NotSo("even a plain list of streams read the right answer: this proves nothing")
    return f"asked for 2, read {answers[0]}"

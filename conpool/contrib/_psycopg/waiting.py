"""Runs psycopg's generators on trio: waits for the sockets that they name.

A generator yields what it waits for, reading, writing or either, and is sent what has become
possible. It may be woken with nothing, and then mostly waits on.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Awaitable, Callable
from typing import Final, cast

import psycopg
import trio
from psycopg.abc import RV, PQGen, PQGenConn
from psycopg.waiting import Ready, Wait

from conpool.contrib._psycopg.inside import WaitTimeout

MAX_BUSY: Final = 0.005
"""For how long sockets that are always ready may keep other tasks from running, in seconds."""

_READ: Final = int(Wait.R)
_WRITE: Final = int(Wait.W)
_poll: Final = getattr(select, "poll", None)

_last_pause = 0.0
"""When a task that waited here last let others run, on the clock of `time.monotonic`."""


async def drive(
    generator: PQGen[RV], fileno: int, interval: float = math.inf, timeout: float | None = None
) -> RV:
    """Run a generator whose connection is open, to its end.

    Args:
        generator: Yields what it waits for.
        fileno: The socket of the connection.
        interval: Wake the generator, with nothing, when it has waited for so many seconds.
        timeout: Give up after so many seconds; 0 looks once.

    Returns:
        What the generator returns.

    Raises:
        WaitTimeout: The `timeout` has passed.
        psycopg.OperationalError: The connection was closed meanwhile.

    If it is cancelled before the generator has done anything, the generator has not begun. If it
    is cancelled later, the generator is left where it is.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        wanted = next(generator)
    except StopIteration as end:
        await _pause_if_busy()
        return cast("RV", end.value)
    deadline = math.inf if timeout is None else trio.current_time() + timeout
    try:
        while True:
            seconds = interval
            if deadline < math.inf:
                seconds = min(interval, max(0.0, deadline - trio.current_time()))
            ready = await _wait(fileno, wanted, seconds)
            wanted = generator.send(ready)
            if deadline <= trio.current_time():
                raise WaitTimeout("the wait timed out")
    except StopIteration as end:
        return cast("RV", end.value)


async def drive_connecting(generator: PQGenConn[RV]) -> RV:
    """Run a generator that opens a connection: it says for which socket it waits each time.

    libpq tries one address after the other, each with a socket of its own, perhaps of the same
    number as the one before.

    Raises:
        psycopg.OperationalError: The socket was closed meanwhile.

    If it fails or is cancelled, it ends the generator, which closes its socket.
    """
    try:
        await trio.lowlevel.checkpoint_if_cancelled()
        fileno, wanted = next(generator)
        while True:
            fileno, wanted = generator.send(await _wait(fileno, wanted, math.inf))
    except StopIteration as end:
        return cast("RV", end.value)
    finally:
        generator.close()


async def _wait(fileno: int, wanted: int, seconds: float) -> Ready:
    """Wait for one readiness of a socket; return `Ready.NONE` when `seconds` have passed."""
    try:
        if wanted & _WRITE and (ready := look(fileno, wanted)):
            await _pause_if_busy()
            return Ready(ready)
        if seconds == math.inf:
            return await _wait_for_good(fileno, wanted)
        with trio.move_on_after(seconds):
            return await _wait_for_good(fileno, wanted)
        return Ready(look(fileno, wanted))
    except trio.ClosedResourceError:
        raise psycopg.OperationalError("the connection was closed") from None
    except OSError as error:
        raise psycopg.OperationalError("the connection's socket was closed") from error


async def _wait_for_good(fileno: int, wanted: int) -> Ready:
    if wanted == _READ:
        await trio.lowlevel.wait_readable(fileno)
        ready = Ready.R
    elif wanted == _WRITE:
        await trio.lowlevel.wait_writable(fileno)
        ready = Ready.W
    else:
        ready = await _wait_for_either(fileno)
    _note_pause()
    return ready


async def _wait_for_either(fileno: int) -> Ready:
    ready = 0
    failed: Exception | None = None

    async def wait(wait_for: Callable[[int], Awaitable[None]], kind: Ready) -> None:
        nonlocal ready, failed
        try:
            await wait_for(fileno)
            ready |= kind
        except (OSError, trio.ClosedResourceError) as error:
            failed = error
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, trio.lowlevel.wait_readable, Ready.R)
        nursery.start_soon(wait, trio.lowlevel.wait_writable, Ready.W)
    if failed is not None and not ready:
        raise failed
    return Ready(ready)


def look(fileno: int, wanted: int) -> int:
    """Return what a socket is ready for now; nothing where the system has no `poll`."""
    if _poll is None:  # pragma: no cover: Windows
        return 0
    asked = (select.POLLIN if wanted & _READ else 0) | (select.POLLOUT if wanted & _WRITE else 0)
    poll = _poll()
    poll.register(fileno, asked)
    ready = 0
    for _, events in poll.poll(0):
        if wanted & _READ and events & ~select.POLLOUT:  # errors are read, too
            ready |= int(Ready.R)
        if wanted & _WRITE and events & ~select.POLLIN:
            ready |= int(Ready.W)
    return ready


async def _pause_if_busy() -> None:
    """Let others run, if that was long ago: a COPY has a million steps that wait for nothing."""
    if time.monotonic() - _last_pause >= MAX_BUSY:
        await trio.lowlevel.cancel_shielded_checkpoint()
        _note_pause()


def _note_pause() -> None:
    global _last_pause
    _last_pause = time.monotonic()

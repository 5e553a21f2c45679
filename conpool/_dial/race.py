"""Happy eyeballs: try several addresses, one a little after the other; the first to answer wins.

RFC 8305, section 5, in our own words:

1. The first address is tried.
2. When an attempt fails, or `delay` has passed without an answer, the next attempt starts. The
   earlier ones go on.
3. The first to connect wins; all others are cancelled.
4. The winner is handed over when all others have closed their sockets, so that a race never leaves
   more than one socket open.

trio has this too, but it hides the error of each attempt, does not tell which address won, and
returns sockets that are not connected (`tcp` looks).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar, final

import trio

from conpool._dial.progress import note_attempt


class Closable(Protocol):
    """All that a race needs to know of a socket."""

    def close(self) -> object:
        """Close the socket now."""
        ...


AddressT = TypeVar("AddressT")
SocketT = TypeVar("SocketT", bound=Closable)


async def race(
    addresses: Sequence[AddressT],
    attempt: Callable[[AddressT], Awaitable[SocketT]],
    *,
    delay: float,
) -> tuple[AddressT, SocketT]:
    """Connect to one of several addresses.

    Args:
        addresses: At least one, the best first.
        attempt: Connects to one of them. If it fails or is cancelled, it closes its socket.
        delay: How long to wait for an answer before the next attempt starts, in seconds.

    Returns:
        The address that answered first, and its socket.

    Raises:
        ExceptionGroup: All attempts failed; the group has one `OSError` for each address.

    Cancelling it closes every socket.
    """
    if len(addresses) == 1:
        # Most hosts have one address, and a nursery costs more than all the rest.
        try:
            return addresses[0], await attempt(addresses[0])
        except OSError as error:
            note_attempt(error)
            raise ExceptionGroup("the only address failed", [error]) from None
    return await _Race(attempt, delay).run(addresses)


@final
class _Race(Generic[AddressT, SocketT]):
    __slots__ = ("_attempt", "_delay", "_failed", "_failures", "_winner")

    def __init__(self, attempt: Callable[[AddressT], Awaitable[SocketT]], delay: float) -> None:
        self._attempt = attempt
        self._delay = delay
        self._failures: list[OSError] = []
        self._failed = trio.Event()
        self._winner: tuple[AddressT, SocketT] | None = None

    async def run(self, addresses: Sequence[AddressT]) -> tuple[AddressT, SocketT]:
        try:
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    self._failed = trio.Event()
                    nursery.start_soon(self._try, address, nursery.cancel_scope)
                    with trio.move_on_after(self._delay):
                        await self._failed.wait()
        except BaseException:
            if self._winner is not None:
                self._winner[1].close()
            raise
        if self._winner is None:
            raise ExceptionGroup("all addresses failed", self._failures)
        return self._winner

    async def _try(self, address: AddressT, everybody: trio.CancelScope) -> None:
        try:
            socket = await self._attempt(address)
        except OSError as error:
            note_attempt(error)
            self._failures.append(error)
            self._failed.set()
            return
        if self._winner is None:
            self._winner = address, socket
            everybody.cancel()
        else:
            # Two attempts may finish in one tick, before the cancellation reaches the second.
            socket.close()

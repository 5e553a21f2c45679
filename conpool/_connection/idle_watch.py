"""Notices that the peer of an idle connection has closed it, with no traffic and no task apiece.

All sockets of a pool stand in one epoll, and one task waits for that epoll's own descriptor. Each is
entered once, when its connection is opened: edge-triggered, for the end of the stream only. Data does not wake
it, so leases pay nothing.

An event is a hint and no more. It may be about a connection that is lent (the look at its return will see
the same) or, where descriptors were duplicated by a fork, about one that is long gone and whose
number another has now. So whoever gets one looks at the connection that is there now.

Where there is no epoll, and for a TLS goodbye without an end of the stream, the sweep finds out.
"""

from __future__ import annotations

import select
import sys
from typing import Final, final

import trio

from conpool._connection.pooled import PooledEntry

_BATCH: Final = 256
"""Events taken between two checkpoints, so that a server that drops thousands does not stop the loop."""


@final
class IdleWatch:
    """Which connections have stirred."""

    def __init__(self) -> None:
        self._by_descriptor: dict[int, PooledEntry] = {}
        self._epoll: select.epoll | None = None

    def open(self) -> None:
        """Start watching, where the platform can."""
        if sys.platform == "linux":
            self._epoll = select.epoll()

    def close(self) -> None:
        """Stop watching."""
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
        self._by_descriptor.clear()

    def add(self, entry: PooledEntry) -> None:
        """Watch `entry`, which has just been opened, until it is closed."""
        descriptor = entry.link.fileno()
        if sys.platform != "linux" or self._epoll is None or descriptor < 0:
            return
        events = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR | select.EPOLLET
        try:
            self._epoll.register(descriptor, events)
        except FileExistsError:  # the number's last owner was closed in a way that a fork outlives
            self._epoll.modify(descriptor, events)
        except OSError:  # so many and no more, says the system (ENOSPC): the sweep finds out
            return
        self._by_descriptor[descriptor] = entry

    def remove(self, entry: PooledEntry) -> None:
        """Forget `entry`, whose socket is about to leave the pool or to be closed."""
        descriptor = entry.link.fileno()
        if self._epoll is not None and self._by_descriptor.get(descriptor) is entry:
            del self._by_descriptor[descriptor]
            self._epoll.unregister(descriptor)

    async def wait(self) -> list[PooledEntry]:
        """Wait until something has stirred, and return which; never returns without epoll.

        If cancelled, nothing is lost but hints.
        """
        if self._epoll is None:
            await trio.sleep_forever()
        await trio.lowlevel.wait_readable(self._epoll.fileno())
        stirred = [number for number, _ in self._epoll.poll(0, _BATCH)]
        found = (self._by_descriptor.get(number) for number in stirred)
        return [entry for entry in found if entry is not None]

    def __repr__(self) -> str:
        return f"<IdleWatch over {len(self._by_descriptor)} connections>"

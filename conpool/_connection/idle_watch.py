"""Notices when the peer of an idle connection closes it, with no traffic and one task for all.

All sockets of a pool are in one epoll, and one task waits for the epoll's own descriptor. The pool
registers a socket once, when its connection is opened: edge-triggered, and for the end of the
stream only. Data does not wake the task, so leases pay nothing.

An event is only a hint. It may be about a connection that is lent; the probe at the end of the
lease finds the same. If a fork has duplicated descriptors, it may be about a connection that is
gone and whose number another connection has now. So the pool probes the one that is there now.

Where there is no epoll, the sweep finds out. The sweep also finds a peer that says goodbye in TLS
but does not end the stream.
"""

from __future__ import annotations

import select
import sys
from typing import Final, final

import trio

from conpool._connection.pooled import PooledEntry

_BATCH: Final = 100
"""Most events between two checkpoints: thousands at once must not hold up other tasks."""


@final
class IdleWatch:
    """Tells which connections their peers may have closed."""

    def __init__(self) -> None:
        self._by_descriptor: dict[int, PooledEntry] = {}
        self._descriptors: dict[PooledEntry, int] = {}
        self._epoll: select.epoll | None = None

    def open(self) -> None:
        """Start watching, if the platform has epoll."""
        if sys.platform == "linux":
            self._epoll = select.epoll()

    def close(self) -> None:
        """Stop watching."""
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
        self._by_descriptor.clear()
        self._descriptors.clear()

    def add(self, entry: PooledEntry) -> None:
        """Watch `entry`, which has just been opened, until it is closed."""
        descriptor = entry.link.fileno()
        if sys.platform != "linux" or self._epoll is None or descriptor < 0:
            return
        events = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR | select.EPOLLET
        try:
            self._epoll.register(descriptor, events)
        except FileExistsError:  # a fork keeps the file of the number's last owner open
            self._epoll.modify(descriptor, events)
        except OSError:  # the system allows no more (ENOSPC): the sweep finds out
            return
        self._by_descriptor[descriptor] = entry
        self._descriptors[entry] = descriptor

    def remove(self, entry: PooledEntry) -> None:
        """Stop watching `entry`, whose socket is about to leave the pool or to be closed."""
        descriptor = self._descriptors.pop(entry, -1)
        if self._epoll is not None and self._by_descriptor.get(descriptor) is entry:
            del self._by_descriptor[descriptor]
            # If a stranger has closed the file, the system has removed it from the epoll itself.
            try:  # noqa: SIM105 - `suppress` would cost each close four calls
                self._epoll.unregister(descriptor)
            except OSError:
                pass

    async def wait(self) -> list[PooledEntry]:
        """Wait for events, and return the connections that they are about; for ever without epoll.

        Cancelling it loses hints at most.
        """
        if self._epoll is None:
            await trio.sleep_forever()
        await trio.lowlevel.wait_readable(self._epoll.fileno())
        numbers = [number for number, _ in self._epoll.poll(0, _BATCH)]
        found = (self._by_descriptor.get(number) for number in numbers)
        return [entry for entry in found if entry is not None]

    def __repr__(self) -> str:
        return f"<IdleWatch over {len(self._by_descriptor)} connections>"

"""One look-up of one name: asks a given resolver, trio's hook, or the system.

The system's `getaddrinfo` cannot be interrupted and may take half a minute. trio would run it in a
thread that counts against the limit for all of the program's threads. When the caller is
cancelled trio forgets that thread, so a slow name takes one more thread with each attempt. Here

1. look-ups have limits of their own (`places`), and never touch trio's;
2. a thread belongs to a name: all tasks that ask for the name meanwhile wait for the same thread;
3. a result is still reported, to be remembered, after the last of these tasks has gone.

No background task runs a look-up, so none can be left over. A thread for which nobody waits any
more holds nothing but its place in the limits.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast, final

import trio

from conpool._dial.address import Address, read_address, read_literal
from conpool._dial.places import MOST_THREADS, Place, Places
from conpool._values.config_error import named, shown

if TYPE_CHECKING:
    from outcome import Outcome  # trio's dependency, not ours

MOST_READ: Final = 1_000
"""How many addresses of one answer are read; a name server can send four times as many."""

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Finds the IP addresses of a name: `await resolver(host, family)`.

`family` is `socket.AF_INET`, `socket.AF_INET6`, or 0 for both. The best addresses come first; an
empty result means that the name does not exist. It raises `OSError` when it cannot say. It runs in
one of the tasks that wait for the name, and is cancelled with that task.
"""

Found: TypeAlias = "Outcome[tuple[Address, ...]]"


class Question(NamedTuple):
    """What to look up; answers are remembered under it."""

    host: str
    family: int
    port: int
    """0, unless trio's hook is set: the hook is given the port, and may change it."""


@final
class Lookups:
    """Looks names up, in a limited number of threads. It belongs to one run of trio."""

    def __init__(
        self, resolver: Resolver | None, on_orphan: Callable[[Question, Found], None]
    ) -> None:
        self._resolver = resolver
        self._on_orphan = on_orphan
        self._places: Places[Question] = Places()
        self._threads: dict[Question, _Thread] = {}

    def question(self, host: str, port: int, family: int) -> Question:
        """Return what would be looked up for `host` now."""
        hooked = self._resolver is None and find_hook() is not None
        return Question(host, family, port if hooked else 0)

    async def ask(self, question: Question) -> tuple[Address, ...]:
        """Look a name up.

        Returns:
            The addresses, the best first; perhaps none.

        Raises:
            OSError: `socket.gaierror`, or any error of the resolver.

        If it is cancelled while the system is asked, the thread goes on; once it ends with no task
        waiting, `on_orphan` gets the result.
        """
        host, family, port = question
        if self._resolver is not None:
            return _of_family(family, _read_all(await self._resolver(host, family)))
        if find_hook() is not None:
            found = await trio.socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
            return _of_family(family, _read_found(found))
        return await self._ask_system(question)

    async def _ask_system(self, question: Question) -> tuple[Address, ...]:
        thread = self._threads.get(question)
        if thread is None:
            place = await self._places.take(question)
            # Nothing awaits from here to the thread's start, so the place cannot be lost.
            thread = self._start(question, place)
        await thread.ended.wait()
        assert thread.found is not None
        return thread.found.unwrap()

    def _start(self, question: Question, place: Place) -> _Thread:
        token = trio.lowlevel.current_trio_token()
        thread = _Thread(place)

        def deliver(found: Found) -> None:
            # If the run has ended, nobody needs the result.
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(self._ended, question, thread, found)

        try:
            trio.lowlevel.start_thread_soon(
                lambda: _getaddrinfo(question), deliver, f"conpool look-up of {question.host}"
            )
        except RuntimeError as error:
            self._places.give_up(place)
            raise OSError(errno.ENOMEM, "this machine has no thread left for a look-up") from error
        self._threads[question] = thread
        return thread

    def _ended(self, question: Question, thread: _Thread, found: Found) -> None:
        del self._threads[question]
        self._places.give_back(question, thread.place)
        thread.found = found
        if not thread.ended.statistics().tasks_waiting:
            self._on_orphan(question, found)
        thread.ended.set()

    def __repr__(self) -> str:
        return f"<Lookups: {len(self._threads)} threads of {MOST_THREADS}>"


@final
class _Thread:
    """A look-up under way in a thread."""

    __slots__ = ("ended", "found", "place")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.ended = trio.Event()
        self.found: Found | None = None


def _getaddrinfo(question: Question) -> tuple[Address, ...]:
    # As bytes: Python would encode a str by IDNA, and refuse names that the system accepts.
    host = question.host.encode("ascii")
    found = socket.getaddrinfo(host, None, question.family, socket.SOCK_STREAM)
    return _of_family(question.family, _read_found(found))


def _read_found(found: Iterable[tuple[Any, ...]]) -> Iterator[Address | None]:
    return (read_address(one[0], one[4]) for one in islice(found, MOST_READ))


def _read_all(texts: object) -> Iterator[Address]:
    """Read what a resolver of the user's own has given."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise TypeError(f"it must give a list of IP addresses, not {named(texts)}")
    return map(_read_given, islice(cast("Iterable[object]", texts), MOST_READ))


def _read_given(text: object) -> Address:
    address = read_literal(text) if isinstance(text, str) else None
    if address is None:
        raise ValueError(f"the resolver gave {shown(text)}, which is no IP address")
    return address


def _of_family(family: int, addresses: Iterable[Address | None]) -> tuple[Address, ...]:
    return tuple(a for a in addresses if a is not None and family in (0, a.family))


@trio.lowlevel.enable_ki_protection
def find_hook() -> trio.abc.HostnameResolver | None:
    """Return the hook that `trio.socket.set_custom_hostname_resolver` has set, if any.

    trio has no way to ask. Setting another returns the old one, which is put back at once.
    """
    hook = trio.socket.set_custom_hostname_resolver(None)
    if hook is not None:
        trio.socket.set_custom_hostname_resolver(hook)
    return hook

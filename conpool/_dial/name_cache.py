"""From host names to addresses, with a memory.

1. An IP address is its own answer; nobody is asked.
2. What was found less than `ttl` ago is used. That a name was not found is remembered for a second:
   long enough for a crowd to be told at once, too short for anyone to wait for.
3. Otherwise one of those who want to know asks, in its own task, and the rest wait for what it
   finds (`_Flight`). If it is cancelled, the rest wake up, and the first of them asks instead:
   nobody's cancellation costs another its answer, and there is no task that could be left over.
4. If the resolver is down (as opposed to: it says that there is no such name) or slow, what was found
   before still serves, as RFC 8767 has it. The addresses have probably not changed.
5. When connecting to all addresses of an answer fails, `Answer.expire` has the next one ask again.

Everything between two awaits happens at once, so no lock is needed. All of it belongs to one run of
trio: times on its clock and threads that report to it mean nothing to the next.
"""

from __future__ import annotations

import math
import socket
from dataclasses import dataclass
from typing import Final, final

import trio

from conpool._dial.address import Address, read_literal
from conpool._dial.lookup import Found, Lookups, Question, Resolver

MAX_NAMES: Final = 1024
"""How many names are remembered; a crawler passes a million hosts through one connector."""

FAILURE_TTL: Final = 1.0
"""How long a failed look-up is remembered, in seconds."""

PATIENCE: Final = 1.8
"""How long to wait for a resolver when there is an old answer, in seconds (RFC 8767, section 5).

Half of what is left to the one who asks, if that is less.
"""

STALE_TTL: Final = 30.0
"""How long an old answer serves before the resolver is tried again, in seconds (the same)."""

MAX_STALE: Final = 86_400.0
"""The age at which an old answer is no better than none, in seconds: the least of RFC 8767's."""

_NO_SUCH_NAME: Final = frozenset(
    getattr(socket, name)
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY")
    if hasattr(socket, name)
)
"""What a resolver says that is up and knows; any other failure says nothing about the name."""


@final
@dataclass(frozen=True, slots=True)
class ResolverStats:
    """How a connector's look-ups went.

    Attributes:
        hits: Answers from memory, that a name was not found included.
        misses: How often a caller had to wait for a look-up, its own or another's.
        lookups: How often the resolver was asked.
        failures: How often it failed, or found nothing.
        stale: How often an old answer was used in place of a failed or slow look-up.
        names: How many names are remembered now.
    """

    hits: int
    misses: int
    lookups: int
    failures: int
    stale: int
    names: int


@final
class Answer:
    """What was found out about one name, or that it failed."""

    __slots__ = ("addresses", "failure", "found_at", "fresh_until", "winner")

    def __init__(
        self,
        addresses: tuple[Address, ...],
        *,
        found_at: float,
        fresh_until: float,
        failure: OSError | None = None,
    ) -> None:
        self.addresses = addresses
        self.failure = failure
        self.found_at = found_at
        self.fresh_until = fresh_until
        self.winner: Address | None = None
        """The address that connected last."""

    def expire(self) -> None:
        """Have the next one ask again; the addresses are kept in case the resolver is down."""
        self.fresh_until = -math.inf
        self.winner = None

    def __repr__(self) -> str:
        said = self.failure or ", ".join(address.ip for address in self.addresses)
        return f"<Answer {said}>"


@final
class _Flight:
    """A look-up under way, for those who wait for it."""

    __slots__ = ("answer", "landed")

    def __init__(self) -> None:
        self.landed = trio.Event()
        self.answer: Answer | None = None
        """None if it was cancelled, and somebody else must ask."""


@final
class NameCache:
    """Resolves names and remembers them, for one connector in one run of trio."""

    __slots__ = (
        "_answers",
        "_failures",
        "_flights",
        "_hits",
        "_lookups",
        "_made",
        "_misses",
        "_stale",
        "_ttl",
    )

    def __init__(self, *, ttl: float, resolver: Resolver | None = None) -> None:
        self._ttl = ttl
        self._lookups = Lookups(resolver, self._adopt)
        self._answers: dict[Question, Answer] = {}
        self._flights: dict[Question, _Flight] = {}
        self._hits = self._misses = self._made = self._failures = self._stale = 0

    async def resolve(self, host: str, port: int, family: int = 0) -> Answer:
        """Find the addresses of a host.

        Args:
            host: A name or an IP address.
            port: Where the caller will connect to; only a resolver set by trio's hook sees it.
            family: `socket.AF_INET` or `socket.AF_INET6`, or 0 for both.

        Returns:
            An answer with at least one address.

        Raises:
            OSError: There is none, or the resolver failed; mostly a `socket.gaierror`.

        Cancelling it takes nothing from others who wait for the same name.
        """
        literal = read_literal(host, family)
        if literal is not None:
            return Answer((literal,), found_at=0.0, fresh_until=math.inf)
        question = self._lookups.question(host, port, family)
        answer = self._answers.get(question)
        if answer is not None and trio.current_time() < answer.fresh_until:
            self._hits += 1
        else:
            self._misses += 1
            answer = await self._wait(question)
        if answer.failure is not None:
            # A new one for each: an exception that is raised many times gathers their tracebacks.
            raise type(answer.failure)(*answer.failure.args) from answer.failure.__cause__
        return answer

    def addresses_now(self, host: str, port: int, family: int = 0) -> frozenset[str] | None:
        """Return the addresses last found for a name, as `getpeername` spells them.

        None for an IP address, a name never looked up, and one whose last look-up failed.
        """
        answer = self._answers.get(self._lookups.question(host, port, family))
        if answer is None or not answer.addresses:
            return None
        return frozenset(address.ip for address in answer.addresses)

    def is_due(self, host: str, port: int, family: int = 0) -> bool:
        """Whether addresses were found for a name, and are too old to be used unasked."""
        answer = self._answers.get(self._lookups.question(host, port, family))
        if answer is None or not answer.addresses:
            return False
        return trio.current_time() >= answer.fresh_until

    @property
    def stats(self) -> ResolverStats:
        """The counts so far."""
        return ResolverStats(
            hits=self._hits,
            misses=self._misses,
            lookups=self._made,
            failures=self._failures,
            stale=self._stale,
            names=len(self._answers),
        )

    def __repr__(self) -> str:
        return f"<NameCache: {len(self._answers)} remembered, {len(self._flights)} being looked up>"

    # ── look-ups ────────────────────────────────────────────────────────────────

    async def _wait(self, question: Question) -> Answer:
        while True:
            flight = self._flights.get(question)
            if flight is None:
                return await self._fly(question)
            await flight.landed.wait()
            if flight.answer is not None:
                return flight.answer
            # The one who asked was cancelled. What it left behind may have ended just now.
            answer = self._answers.get(question)
            if answer is not None and trio.current_time() < answer.fresh_until:
                return answer

    async def _fly(self, question: Question) -> Answer:
        flight = self._flights[question] = _Flight()
        try:
            flight.answer = await self._look_up(question)
            return flight.answer
        finally:
            del self._flights[question]
            flight.landed.set()

    async def _look_up(self, question: Question) -> Answer:
        old = self._usable(question)
        self._made += 1
        try:
            with trio.move_on_after(math.inf if old is None else _patience()):
                addresses = await self._lookups.ask(question)
                return self._remember(question, addresses)
        except Exception as error:  # noqa: BLE001 - a resolver of the user's own may raise anything
            self._failures += 1
            if old is None or not _is_down(error):
                return self._remember_failure(question, error)
        assert old is not None
        self._stale += 1
        old.fresh_until = trio.current_time() + STALE_TTL
        return old

    def _usable(self, question: Question) -> Answer | None:
        """Return what was found before, if it is still better than nothing."""
        answer = self._answers.get(question)
        if answer is None or not answer.addresses:
            return None
        return answer if trio.current_time() - answer.found_at < MAX_STALE else None

    def _adopt(self, question: Question, found: Found) -> None:
        """Remember what came when nobody waited for it any more."""
        try:
            self._remember(question, found.unwrap())
        except Exception as error:  # noqa: BLE001 - here, out of any task, it would end the program
            self._failures += 1
            if self._usable(question) is None or not _is_down(error):
                self._remember_failure(question, error)

    # ── memory ──────────────────────────────────────────────────────────────────

    def _remember(self, question: Question, addresses: tuple[Address, ...]) -> Answer:
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "the host name has no address")
        now = trio.current_time()
        answer = Answer(addresses, found_at=now, fresh_until=now + self._ttl)
        old = self._answers.get(question)
        if old is not None and old.winner in addresses:
            answer.winner = old.winner
        self._store(question, answer)
        return answer

    def _remember_failure(self, question: Question, error: Exception) -> Answer:
        now = trio.current_time()
        fresh_until = now + min(FAILURE_TTL, self._ttl)
        kept = Answer((), found_at=now, fresh_until=fresh_until, failure=_as_failure(error))
        self._store(question, kept)
        # Those who waited see the traceback of a resolver that broke; memory does not hold on to it.
        told = Answer((), found_at=now, fresh_until=fresh_until, failure=_as_failure(error))
        assert told.failure is not None
        told.failure.__cause__ = error
        return told

    def _store(self, question: Question, answer: Answer) -> None:
        self._answers.pop(question, None)
        if not self._ttl:
            return
        if len(self._answers) >= MAX_NAMES:
            # Dicts keep their order, so the first is the one looked up longest ago.
            del self._answers[next(iter(self._answers))]
        self._answers[question] = answer


def _patience() -> float:
    """How long to wait where there is an old answer: time must be left to make use of it."""
    left = trio.current_effective_deadline() - trio.current_time()
    return min(PATIENCE, max(0.0, left / 2))


def _is_down(error: Exception) -> bool:
    return not (isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_NAME)


def _as_failure(error: Exception) -> OSError:
    """Make what can be kept, and raised many times, of what a resolver raised."""
    if isinstance(error, socket.gaierror):
        return socket.gaierror(*error.args)
    if type(error) is OSError or type(error) is TimeoutError:
        return type(error)(*error.args)
    return socket.gaierror(socket.EAI_FAIL, f"the resolver failed: {error!r}")

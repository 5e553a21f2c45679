"""From host names to addresses, with a memory.

1. An IP address is its own answer; nobody is asked.
2. An answer less than `ttl` old is used. A failure is remembered for a second: long enough to tell
   a crowd at once, too short to keep anyone waiting for a name that has just been made.
3. Otherwise one of the tasks that want to know asks, and the others wait for its answer
   (`_Flight`). If that task is cancelled, the others wake up and the first of them asks instead.
   So no cancellation costs another task its answer, and no background task can be left over.
4. If the resolver is slow or down, the old answer still serves (RFC 8767), because the addresses
   have probably not changed. A resolver that says "no such name" is not down.
5. If no address of an answer connects, the dial calls `Answer.expire`, and the next one asks again.

Between two awaits nothing else runs, so no lock is needed. A cache belongs to one run of trio: its
times are on that run's clock, and its threads report to that run.
"""

from __future__ import annotations

import math
import socket
from dataclasses import dataclass
from typing import Final, final

import trio

from conpool._dial.address import Address, read_literal
from conpool._dial.lookup import MOST_READ, Found, Lookups, Question, Resolver
from conpool._errors.connect import number_of, said

MAX_NAMES: Final = 1024
"""How many names are remembered; a crawler passes a million hosts through one connector."""

FAILURE_TTL: Final = 1.0
"""How long a failed look-up is remembered, in seconds."""

PATIENCE: Final = 1.8
"""How long to wait for a resolver if there is an old answer, in seconds (RFC 8767, section 5).

The caller's remaining time may be short; then the resolver gets half of it.
"""

STALE_TTL: Final = 30.0
"""How long an old answer serves before the resolver is asked again, in seconds (RFC 8767)."""

MAX_STALE: Final = 86_400.0
"""An answer older than this, in seconds, is not used any more: the least that RFC 8767 suggests."""

_NO_SUCH_NAME: Final = frozenset(
    getattr(socket, name)
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY")
    if hasattr(socket, name)
)
"""The codes of a resolver that works and knows; any other failure says nothing about the name."""


@final
@dataclass(frozen=True, slots=True)
class ResolverStats:
    """How a connector's look-ups went.

    Attributes:
        hits: How many dials were answered from memory, including "no such name".
        misses: How many dials waited for a look-up, their own or another's.
        lookups: How often the resolver was asked.
        failures: How often it failed, or found nothing.
        stale: How often an old answer was used because a look-up failed or was slow.
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
    """The result of looking up one name: its addresses, or a failure."""

    __slots__ = ("_failure", "addresses", "found_at", "fresh_until", "winner")

    def __init__(
        self,
        addresses: tuple[Address, ...],
        *,
        found_at: float,
        fresh_until: float,
        failure: OSError | None = None,
    ) -> None:
        self.addresses = addresses
        self.found_at = found_at
        self.fresh_until = fresh_until
        self.winner: Address | None = None
        """The address that connected last."""
        self._failure = failure

    def unwrap(self) -> Answer:
        """Return this answer, or raise the failure that it is."""
        failure = self._failure
        if failure is not None:
            # A new one each time: an exception that is raised many times gathers their tracebacks.
            raise type(failure)(*failure.args) from failure.__cause__
        return self

    def expire(self) -> None:
        """Make the next dial ask again. The addresses stay, in case the resolver is down."""
        self.fresh_until = -math.inf
        self.winner = None

    def __repr__(self) -> str:
        said = self._failure or ", ".join(address.ip for address in self.addresses)
        return f"<Answer {said}>"


@final
class _Flight:
    """A look-up under way, and the tasks that wait for it."""

    __slots__ = ("answer", "landed")

    def __init__(self) -> None:
        self.landed = trio.Event()
        self.answer: Answer | None = None
        """None if the task that asked was cancelled, and another must ask."""


@final
class NameCache:
    """Resolves names and remembers them, for one connector in one run of trio."""

    def __init__(self, *, ttl: float, resolver: Resolver | None = None) -> None:
        self._ttl = ttl
        self._lookups = Lookups(resolver, self._adopt)
        self._answers: dict[Question, Answer] = {}
        self._flights: dict[Question, _Flight] = {}
        self._hits = self._misses = self._made = self._failures = self._stale = 0

    async def resolve(self, host: str, port: int, family: int = 0) -> Answer:
        """Find the addresses of a host, for a dial.

        Args:
            host: A name or an IP address.
            port: The port that the caller will connect to; only trio's hook sees it.
            family: `socket.AF_INET` or `socket.AF_INET6`, or 0 for both.

        Returns:
            An answer with at least one address.

        Raises:
            OSError: There is no address, or the resolver failed; mostly a `socket.gaierror`.

        Cancelling it takes nothing from others who wait for the same name.
        """
        literal = read_literal(host, family)
        if literal is not None:
            return Answer((literal,), found_at=0.0, fresh_until=math.inf)
        question = self._lookups.question(host, port, family)
        answer = self._find_fresh(question)
        if answer is not None:
            self._hits += 1
        else:
            self._misses += 1
            answer = await self._wait(question)
        return answer.unwrap()

    async def addresses(self, host: str, port: int, family: int = 0) -> frozenset[str] | None:
        """Like `resolve`, return the addresses of a name, as `getpeername` spells them.

        None for an IP address, for a name with too many addresses to be read, and for a name that
        cannot be remembered (`ttl` is 0, or other names fill the memory): a caller that asks every
        few seconds would look it up every few seconds.
        """
        if read_literal(host, family) is not None:
            return None
        question = self._lookups.question(host, port, family)
        if question not in self._answers and not self._has_room:
            return None
        answer = (self._find_fresh(question) or await self._wait(question)).unwrap()
        if len(answer.addresses) >= MOST_READ:
            return None  # there may be more
        return frozenset(address.ip for address in answer.addresses)

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
            # The task that asked was cancelled. Its thread may have delivered just now.
            answer = self._find_fresh(question)
            if answer is not None:
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
        old = self._find_usable(question)
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

    def _adopt(self, question: Question, found: Found) -> None:
        """Remember the result of a look-up for which nobody waits any more."""
        try:
            self._remember(question, found.unwrap())
        except Exception as error:  # noqa: BLE001 - here, out of any task, it would end the program
            self._failures += 1
            if self._find_usable(question) is None or not _is_down(error):
                self._remember_failure(question, error)

    # ── memory ──────────────────────────────────────────────────────────────────

    @property
    def _has_room(self) -> bool:
        return bool(self._ttl) and len(self._answers) < MAX_NAMES

    def _find_fresh(self, question: Question) -> Answer | None:
        """Return the answer to use without asking anybody."""
        answer = self._answers.get(question)
        return None if answer is None or trio.current_time() >= answer.fresh_until else answer

    def _find_usable(self, question: Question) -> Answer | None:
        """Return the old answer, if it has addresses and is better than none."""
        answer = self._answers.get(question)
        if answer is None or not answer.addresses:
            return None
        return answer if trio.current_time() - answer.found_at < MAX_STALE else None

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
        # Those who waited see the resolver's own exception as the cause; memory must not keep it,
        # because its traceback would keep everything that its frames refer to.
        failure = _as_failure(error)
        failure.__cause__ = error
        return Answer((), found_at=now, fresh_until=fresh_until, failure=failure)

    def _store(self, question: Question, answer: Answer) -> None:
        self._answers.pop(question, None)
        if not self._ttl:
            return
        if not self._has_room:
            # Dicts keep their order: the first is the one looked up longest ago.
            del self._answers[next(iter(self._answers))]
        self._answers[question] = answer


def _patience() -> float:
    """How long to wait for the resolver, so that there is time left to use the old answer."""
    left = trio.current_effective_deadline() - trio.current_time()
    return min(PATIENCE, max(0.0, left / 2))


def _is_down(error: Exception) -> bool:
    return not (isinstance(error, socket.gaierror) and number_of(error) in _NO_SUCH_NAME)


def _as_failure(error: Exception) -> OSError:
    """Turn what a resolver raised into an error that can be kept, and raised many times."""
    number = number_of(error)
    if isinstance(error, socket.gaierror):
        return socket.gaierror(number, said(error))
    if type(error) is OSError or type(error) is TimeoutError:
        return type(error)(number, said(error))
    return socket.gaierror(socket.EAI_FAIL, f"the resolver failed: {said(error)}")

"""Which member of a group serves: the policies, and what makes a member a bad choice for now.

The policy picks a member first, and only then an idle connection or a dial:

1. A caller gets a connection of the first member, in the order of the policy, that can lend one:
   an idle one, or one that it may dial for. Members are passed over that are marked unhealthy, are
   paused or back off, and those that are full.
2. If it has to wait, it stands in the queue of every member, and takes what is given back anywhere.
   Something is dialled or checked for it at one member at a time: where it stands best at that
   moment (`find_best`). So the member whose dial has failed comes last, and is asked again only if
   no other one has a place.
3. It is refused when every member would refuse it (`is_lost`). A dial says as much to those who had
   come when it began as to the one for whom it was made: each member is tried once for a caller.

The turn belongs to the group's value. The pool remembers it for the groups asked for last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Final, final

from conpool._core.outgoing import is_in_circulation
from conpool._core.records import AnyGroup, AnySubPool, AnyWaiter, Group
from conpool._values.endpoint import AnyEndpoint
from conpool._values.group import EndpointGroup

MOST_TURNS: Final = 1_000
"""Groups whose turn is remembered. Beyond, one that is asked for again starts at its first member.

Programs have a handful; one that builds a group for each request must not fill the memory.
"""


@final
class Balancer:
    """Picks members, and remembers whose turn it is."""

    __slots__ = ("_find_subpool", "_turns")

    def __init__(self, find_subpool: Callable[[AnyEndpoint, float], AnySubPool]) -> None:
        self._find_subpool = find_subpool
        self._turns: OrderedDict[EndpointGroup, AnyGroup] = OrderedDict()

    def pick(self, target: EndpointGroup, now: float, *, fresh: bool) -> AnySubPool:
        """Return the member that serves the next caller, whose turn this is."""
        group = self._find(target)
        members = self.find_members(target, now)
        turns = members[group.turn :] + members[: group.turn]
        usable = [sub for sub in turns if _is_usable(sub, now)]
        order = _in_order(target, members, usable)
        picked = next((sub for sub in order if _can_lend(sub, fresh=fresh)), None)
        if picked is None:
            unmarked = [sub for sub in turns if not sub.gate.is_unhealthy]
            might_lend = [sub for sub in unmarked if _has_open(sub) or sub.gate.is_usable(now)]
            picked = (order or might_lend or unmarked or turns)[0]
        group.turn = (members.index(picked) + 1) % len(members)
        return picked

    def find_members(self, target: EndpointGroup, now: float) -> list[AnySubPool]:
        """Return the sub-pools of the members; make those that do not exist."""
        return [self._find_subpool(endpoint, now) for endpoint in target.endpoints]

    def find_usable(self, target: EndpointGroup, now: float) -> list[AnySubPool]:
        """Return the members of `target` that may lend, the best first; nobody's turn passes."""
        members = self.find_members(target, now)
        turn = self._find(target).turn
        usable = [sub for sub in members[turn:] + members[:turn] if _is_usable(sub, now)]
        return _in_order(target, members, usable)

    def join(self, waiter: AnyWaiter, target: EndpointGroup, first: AnySubPool, now: float) -> None:
        """`waiter` waits for a member of `target`, preferably `first`."""
        members = self.find_members(target, now)
        waiter.group = self._find(target)
        if target.policy == "first_available":
            waiter.subs = tuple(members)
        else:
            start = target.endpoints.index(first.endpoint)
            waiter.subs = (*members[start:], *members[:start])

    def find_best(
        self,
        waiter: AnyWaiter,
        sub: AnySubPool,
        can_dial: Callable[[AnySubPool, float], bool],
        now: float,
        *,
        has_open: bool,
    ) -> AnySubPool | None:
        """Return where `waiter` is served best: at `sub`, which can do it, or at a better member.

        A better one has an open connection for it (`has_open_for`), or can dial. None: it has a
        connection under way that several will share, and `sub` would have to dial.
        """
        assert waiter.group is not None
        order: Iterable[AnySubPool] = waiter.subs
        if waiter.group.target.policy == "least_loaded":
            order = sorted(order, key=_load_of)
        for member in sorted(
            order, key=lambda one: _has_failed(one, waiter) or not _is_usable(one, now)
        ):
            if member is sub:
                return sub
            if member.is_resting or member.gate.is_paused or member.queue.bars_groups:
                continue
            if has_open_for(waiter, member) or can_dial(member, now):
                return member
            if not has_open and _is_covered(member):
                return None
        raise AssertionError(f"{waiter!r} does not wait for {sub!r}")

    def _find(self, target: EndpointGroup) -> AnyGroup:
        group = self._turns.get(target)
        if group is None:
            group = self._turns[target] = Group(target)
            if len(self._turns) > MOST_TURNS:
                self._turns.popitem(last=False)
        self._turns.move_to_end(target)
        return group

    def __repr__(self) -> str:
        return f"<Balancer of {len(self._turns)} groups>"


# ── how a member is ─────────────────────────────────────────────────────────────


def _is_usable(sub: AnySubPool, now: float) -> bool:
    """Whether nothing but its limits speaks against `sub`."""
    return sub.gate.is_usable(now) and sub.gate.is_open(now)


def _can_lend(sub: AnySubPool, *, fresh: bool) -> bool:
    """Whether `sub` has a connection for one more caller, or may dial one for it."""
    if not (fresh or sub.waiting) and _has_open(sub):
        return True
    if _is_tried(sub):
        return False
    if sub.shares and _is_covered(sub):
        return True
    free = sub.limit.total - len(sub.limit.borrowers)
    return free > sub.queue.count_unprovided() and sub.connecting < sub.max_connecting


def _has_open(sub: AnySubPool) -> bool:
    """Whether one is idle, or has room."""
    return len(sub.idle) > len(sub.reserved) or bool(sub.roomy)


def has_open_for(waiter: AnyWaiter, sub: AnySubPool) -> bool:
    """Whether `sub` has an open connection that `waiter` takes."""
    return not waiter.fresh and _has_open(sub)


def _is_tried(sub: AnySubPool) -> bool:
    """Whether a dial finds out, at this moment, whether `sub` is back: one caller is enough."""
    return sub.gate.is_failing and sub.connecting > sub.void


def _is_covered(sub: AnySubPool) -> bool:
    """Whether connections are under way that all who wait for `sub` can share."""
    is_coming = sub.shares and sub.connecting > sub.void and not sub.gate.is_failing
    return is_coming and sub.count_needed() <= sub.count_coming()


def _load_of(sub: AnySubPool) -> tuple[int, int]:
    """How busy `sub` is: the fewer slots are left, the busier; then the more leases there are."""
    taken = sub.active + sub.connecting + sub.closing + sub.queue.count_unprovided()
    leases = sub.counters.acquired - sub.counters.use_time.count
    return taken - sub.limit.total, leases


def _in_order(
    target: EndpointGroup, members: list[AnySubPool], usable: list[AnySubPool]
) -> list[AnySubPool]:
    """Return those of `usable`, which are in the order of their turns, as the policy wants them."""
    if target.policy == "first_available":
        return [sub for sub in members if sub in usable]
    return sorted(usable, key=_load_of) if target.policy == "least_loaded" else usable


# ── who is refused ──────────────────────────────────────────────────────────────


def _has_failed(sub: AnySubPool, waiter: AnyWaiter) -> bool:
    """Whether a dial has failed that began after `waiter` came, and none has succeeded since."""
    return sub.gate.is_failing and waiter.number <= sub.bad_news


def is_lost(waiter: AnyWaiter, now: float, *, is_patient: bool) -> bool:
    """Whether each member would refuse `waiter`.

    A pause ends, so nobody is refused where a member is paused. If `is_patient`, the outage of
    each member must have lasted for its grace.
    """
    for sub in waiter.subs:
        gate = sub.gate
        if gate.is_unhealthy:
            continue
        if gate.is_cut_off(now):
            if waiter.coming is not None and waiter.coming.sub is sub:
                return False  # what began before its circuit opened may still succeed
            continue
        if gate.is_paused or not _has_failed(sub, waiter):
            return False
        since = gate.outage_since
        if is_patient and since is not None and now - since < sub.config.outage_grace:
            return False
    return True


def why_unusable(subs: Iterable[AnySubPool], now: float) -> Mapping[AnyEndpoint, Exception | str]:
    """Say for each of `subs` why it does not serve."""
    return {sub.endpoint: _why_unusable(sub, now) for sub in subs}


def _why_unusable(sub: AnySubPool, now: float) -> Exception | str:
    gate = sub.gate
    if gate.is_unhealthy:
        return "it is marked unhealthy"
    if gate.is_cut_off(now):
        last = "" if gate.last_error is None else f", after: {gate.last_error}"
        return f"its circuit is open{last}"
    return gate.last_error or "its dials fail"


def is_hopeless(subs: Iterable[AnySubPool], now: float, *, fresh: bool) -> bool:
    """Whether a caller need not even wait: groups go without each of `subs`.

    Where only circuits are open, a connection that is idle, or comes back, may still serve it.
    """
    for sub in subs:
        if sub.gate.is_usable(now):
            return False
        may_lend = _has_open(sub) or is_in_circulation(sub)
        if may_lend and not (fresh or sub.gate.is_unhealthy):
            return False
    return True

"""Bugs planted where members of a group are picked, waited for and given up."""

from __future__ import annotations

from typing import Final

from mutations.bug import Mutation

TESTS: Final = (
    "tests/unit/core/test_groups.py",
    "tests/unit/pool/test_groups.py",
    "tests/model/test_model.py",
)


def plant(name: str, file: str, old: str, new: str) -> Mutation:
    return Mutation(name=name, file=file, old=old, new=new, tests=TESTS)


MUTATIONS: Final = (
    plant(
        "the turn does not pass",
        "_core/balancer.py",
        "        group.turn = (members.index(picked) + 1) % len(members)\n",
        "",
    ),
    plant(
        "a marked member is used by groups",
        "_core/balancer.py",
        "    return sub.gate.is_usable(now) and sub.gate.is_open(now)\n",
        "    return sub.gate.is_open(now)\n",
    ),
    plant(
        "a member that is paused or backs off is picked",
        "_core/balancer.py",
        "    return sub.gate.is_usable(now) and sub.gate.is_open(now)\n",
        "    return sub.gate.is_usable(now)\n",
    ),
    plant(
        "a full member is picked",
        "_core/balancer.py",
        "        picked = next((sub for sub in order if _can_lend(sub, fresh=fresh)), None)\n",
        "        picked = next(iter(order), None)\n",
    ),
    plant(
        "all callers try a member that may be back",
        "_core/balancer.py",
        "    if _is_tried(sub):\n        return False\n",
        "",
    ),
    plant(
        "the least loaded are sorted the wrong way round",
        "_core/balancer.py",
        "    return taken - sub.limit.total, leases\n",
        "    return sub.limit.total - taken, leases\n",
    ),
    plant(
        "waiters of a group with turns all prefer its first member",
        "_core/balancer.py",
        "            waiter.subs = (*members[start:], *members[:start])\n",
        "            waiter.subs = tuple(members)\n",
    ),
    plant(
        "a failed dial is repeated at the same member",
        "_core/balancer.py",
        "key=lambda one: _has_failed(one, waiter) or not _is_usable(one, now)",
        "key=lambda one: False",
    ),
    plant(
        "dials that began before a caller came are news to it",
        "_core/balancer.py",
        "    return sub.gate.is_failing and waiter.number <= sub.bad_news\n",
        "    return sub.gate.is_failing\n",
    ),
    plant(
        "what a member failed with is remembered after it is back",
        "_core/balancer.py",
        "    return sub.gate.is_failing and waiter.number <= sub.bad_news\n",
        "    return waiter.number <= sub.bad_news\n",
    ),
    plant(
        "a caller is refused in a pause",
        "_core/balancer.py",
        "        if gate.is_paused or not _has_failed(sub, waiter):\n",
        "        if not gate.is_paused and not _has_failed(sub, waiter):\n",
    ),
    plant(
        "nobody who had no dial waits for the grace of an outage",
        "_core/balancer.py",
        "        if is_patient and since is not None and now - since < sub.config.outage_grace:\n",
        "        if False and since is not None and now - since < sub.config.outage_grace:\n",
    ),
    plant(
        "turns are remembered for ever",
        "_core/balancer.py",
        "                self._turns.popitem(last=False)\n",
        "                pass\n",
    ),
    plant(
        "those who share wait for the first dial at every member",
        "_core/balancer.py",
        "            if not has_open and _is_covered(member):\n                return None\n",
        "",
    ),
    plant(
        "who relied on a shared dial is forgotten when it fails",
        "_core/core.py",
        "                self._dials.dial_elsewhere(sub, now)\n",
        "                pass\n",
    ),
    plant(
        "an idle connection comes before the policy",
        "_core/dials.py",
        "        if waiter is None or waiter.group is None or waiter.coming is not None:\n"
        "            return True\n",
        "        return True\n",
    ),
    plant(
        "a waiter of a group is dialled for wherever the pump looks first",
        "_core/dials.py",
        "        if waiter is None or waiter.group is None:\n            return waiter, sub\n",
        "        return waiter, sub\n",
    ),
    plant(
        "the members that stood in line with the same waiter keep their claim",
        "_core/dials.py",
        "            if member.claim is waiter:  # it stood in line with the same one\n"
        "                self.dial_for_waiters(member, now)\n",
        "            pass\n",
    ),
    plant(
        "a waiter of a group takes a slot for each member",
        "_core/pool_limit.py",
        "max(self.wanted - self.extra, min(self.wanted, 1)) if self.extra else self.wanted",
        "self.wanted",
    ),
    plant(
        "a caller is refused though a connection may come back",
        "_core/failures.py",
        "        if waiter.fresh or not any(map(is_in_circulation, helpers)):\n",
        "        if True:\n",
    ),
    plant(
        "dials to members that have failed keep callers waiting",
        "_core/failures.py",
        "        if waiter.fresh or not any(map(is_in_circulation, helpers)):\n",
        "        if waiter.fresh or not any(map(_may_be_helped, helpers)):\n",
    ),
    plant(
        "an outage of all members is told to nobody else",
        "_core/failures.py",
        "            self.review(sub, now)\n        if is_over",
        "            pass\n        if is_over",
    ),
    plant(
        "marking leaves those who wait for a dial where they are",
        "_core/failures.py",
        "            self._ledger.let_go(waiter)\n",
        "            pass\n",
    ),
    plant(
        "marking the last member tells nobody",
        "_core/orders.py",
        "            self._ledger.pool_limit.stand_in_line(sub, None, 0)\n"
        "            self._failures.review(sub, now)\n",
        "            self._ledger.pool_limit.stand_in_line(sub, None, 0)\n",
    ),
    plant(
        "unmarking serves nobody who waits",
        "_core/orders.py",
        "            self._failures.review(sub, now)\n        self._ledger.touch(sub)\n\n"
        "    def failure_reported",
        "            self._failures.review(sub, now)\n\n    def failure_reported",
    ),
    plant(
        "a marked member lends to those who wait for a group",
        "_core/standing.py",
        "    queue.bars_groups = bars\n",
        "",
    ),
    plant(
        "what is under way at one member keeps the others busy",
        "_core/standing.py",
        "        is_away = coming is not None and coming.sub is not sub\n",
        "        is_away = False\n",
    ),
    plant(
        "nobody is told when the last connection of a group goes that is cut off",
        "_core/core.py",
        "                self.failures.review_hopeless(sub, now)\n",
        "",
    ),
    plant(
        "a group is as its first circuit",
        "_core/seen.py",
        "        circuit=next(state for state in _BEST_FIRST if state in circuits),\n",
        "        circuit=members[0].circuit,\n",
    ),
    plant(
        "a task that waits for a group counts once for each member",
        "_core/seen.py",
        "    return places.total() - sum(once.values())\n",
        "    return 0\n",
    ),
)

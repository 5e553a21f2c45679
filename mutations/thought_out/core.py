"""Bugs planted in the core: forgotten pumps, swapped orders, counts off by one, rules left out."""

from __future__ import annotations

from typing import Final

from mutations.bug import Mutation

SCENARIOS: Final = (
    "tests/unit/core/test_core.py",
    "tests/unit/core/test_core_times.py",
    "tests/unit/core/test_core_orders.py",
    "tests/unit/core/test_dials.py",
    "tests/unit/core/test_pool_limit.py",
    "tests/unit/core/test_ledger.py",
    "tests/unit/core/test_records.py",
    "tests/unit/core/test_timetable.py",
    "tests/unit/core/test_limit.py",
    "tests/unit/core/test_gate.py",
    "tests/unit/values/test_states.py",
    "tests/model/test_state_machine.py",
    "tests/model/test_model.py",
)


def plant(name: str, file: str, old: str, new: str) -> Mutation:
    return Mutation(name=name, file=file, old=old, new=new, tests=SCENARIOS)


MUTATIONS: Final = (
    # ── lost wake-ups ───────────────────────────────────────────────────────────
    plant(
        "a close frees its slot and nobody is told",
        "_core/core.py",
        "        sub.counters.count_closed(entry.reason)\n        self._pump(sub, now)\n",
        "        sub.counters.count_closed(entry.reason)\n",
    ),
    plant(
        "a failed dial frees its slot and nobody is told",
        "_core/core.py",
        "                self._ledger.end_warming(debtor, error)\n        self._pump(sub, now)\n",
        "                self._ledger.end_warming(debtor, error)\n",
    ),
    plant(
        "a higher limit starts no dials",
        "_core/core.py",
        "            self._ledger.condemn(entry, CloseReason.SURPLUS, gracefully=True)\n"
        "        self._pump(sub, now)\n",
        "            self._ledger.condemn(entry, CloseReason.SURPLUS, gracefully=True)\n",
    ),
    plant(
        "a resumed endpoint waits for something else to happen",
        "_core/core.py",
        "        sub.paused = False\n        self._pump(sub, now)\n",
        "        sub.paused = False\n",
    ),
    plant(
        "a waiter that leaves takes its place in the pool's line with it",
        "_core/core.py",
        "        self._ledger.dequeue(waiter)\n"
        "        for sub in waiter.subs:\n"
        "            self._pump(sub, now)\n",
        "        self._ledger.dequeue(waiter)\n",
    ),
    plant(
        "nobody is told when the delay after a failure is over",
        "_core/dials.py",
        "                self._expect_gate(sub)\n                wanted = 0\n",
        "                wanted = 0\n",
    ),
    plant(
        "after a failure the second attempt waits for the first one's end",
        "_core/dials.py",
        "                self._expect_gate(sub)  # for the others\n",
        "                pass\n",
    ),
    plant(
        "an idle connection holds the slot of one who wants a new connection",
        "_core/dials.py",
        "        if sub.idle:\n            self._make_way_for_fresh(sub, now)\n",
        "",
    ),
    plant(
        "a full endpoint forgets to look again when its gate opens",
        "_core/dials.py",
        "                self._expect_gate(sub)\n                return\n"
        "            if not self.lacks_slot(",
        "                return\n            if not self.lacks_slot(",
    ),
    plant(
        "a full pool evicts nothing",
        "_core/dials.py",
        "            elif pool_limit.idle_by_age and pool_limit.closing < pool_limit.wanted:\n",
        "            elif pool_limit.idle_by_age and pool_limit.closing > pool_limit.wanted:\n",
    ),
    # ── slots ───────────────────────────────────────────────────────────────────
    plant(
        "a slot of the pool is never repaid",
        "_core/ledger.py",
        "        sub.limit.repay(entry)\n"
        "        if self.pool_limit is not None:\n"
        "            self.pool_limit.limit.repay(entry)\n",
        "        sub.limit.repay(entry)\n",
    ),
    plant(
        "a slot is repaid before the file is closed",
        "_core/ledger.py",
        "        entry.reason = reason\n        sub.closing += 1\n",
        "        entry.reason = reason\n        sub.limit.repay(entry)\n        sub.closing += 1\n",
    ),
    plant(
        "one connection more than the limit",
        "_core/limit.py",
        "        return len(self.borrowers) < self.total\n",
        "        return len(self.borrowers) <= self.total\n",
    ),
    plant(
        "more dials than waiters",
        "_core/records.py",
        "        wanted = min(len(self.queue), self.max_connecting) - self.connecting\n",
        "        wanted = min(len(self.queue), self.max_connecting)\n",
    ),
    plant(
        "lent surplus is kept when it comes back",
        "_core/core.py",
        "        return sub.find_surplus() if sub.may_be_unwanted else None\n",
        "        return None\n",
    ),
    plant(
        "what is closing already counts as surplus",
        "_core/records.py",
        "        return len(self.limit.borrowers) - self.closing - self.limit.total\n",
        "        return len(self.limit.borrowers) - self.limit.total\n",
    ),
    # ── order ───────────────────────────────────────────────────────────────────
    plant(
        "the oldest idle connection is lent, not the newest",
        "_core/ledger.py",
        "        entry, _ = sub.idle.popitem()\n",
        "        entry = next(iter(sub.idle))\n        del sub.idle[entry]\n",
    ),
    plant(
        "the youngest waiter is dialled for first",
        "_core/records.py",
        "        return next(waiter for waiter in self.queue if waiter.dial is None)\n",
        "        return next(waiter for waiter in reversed(self.queue) if waiter.dial is None)\n",
    ),
    plant(
        "the youngest waiter is served first",
        "_core/core.py",
        "        passed = 0\n        for waiter in sub.queue:\n",
        "        passed = 0\n        for waiter in reversed(sub.queue):\n",
    ),
    plant(
        "whoever is put back last stands first",
        "_core/ledger.py",
        "            for first in (waiter, *reversed(earlier)):\n",
        "            for first in (waiter,):\n",
    ),
    plant(
        "the newest idle connection of the pool is evicted, not the oldest",
        "_core/dials.py",
        "                longest = next(iter(pool_limit.idle_by_age))\n",
        "                longest = next(reversed(pool_limit.idle_by_age))\n",
    ),
    plant(
        "the first in line may be passed once too often",
        "_core/pool_limit.py",
        "        if first.claim.overtaken < MAX_OVERTAKES:\n",
        "        if first.claim.overtaken <= MAX_OVERTAKES:\n",
    ),
    plant(
        "the first in line may be passed for ever",
        "_core/pool_limit.py",
        "            first.claim.overtaken += 1\n            return False\n",
        "            return False\n",
    ),
    plant(
        "an endpoint that has left the line is still first",
        "_core/pool_limit.py",
        "    return sub.claim is not None and sub.claim.number == number\n",
        "    return sub.claim is not None\n",
    ),
    # ── what belongs to whom ────────────────────────────────────────────────────
    plant(
        "a waiter that has gone leaves its claim in line",
        "_core/ledger.py",
        "            if sub.claim is waiter and self.pool_limit is not None:\n",
        "            if sub.claim is waiter and self.pool_limit is None:\n",
    ),
    plant(
        "a waiter that has gone still counts as dialled for",
        "_core/ledger.py",
        "            del sub.queue[waiter]\n"
        "            if waiter.dial is not None:\n"
        "                sub.dialled_for -= 1\n",
        "            del sub.queue[waiter]\n",
    ),
    plant(
        "a waiter put back counts on a dial that is over",
        "_core/ledger.py",
        "        if waiter.dial is not None and waiter.dial.dial_for is not waiter:\n"
        "            waiter.dial = None\n",
        "",
    ),
    plant(
        "a failed dial fails whoever is oldest",
        "_core/core.py",
        "                self._ledger.refuse(debtor, WaitOutcome.DIAL_FAILED, error)\n",
        (
            "                self._ledger.refuse(next(iter(sub.queue)),"
            " WaitOutcome.DIAL_FAILED, error)\n"
        ),
    ),
    plant(
        "a paused endpoint keeps its place in line",
        "_core/core.py",
        "            self.pool_limit.stand_in_line(sub, None, 0)\n",
        "            pass\n",
    ),
    plant(
        "a return in a pause is handed over",
        "_core/core.py",
        "            if sub.queue and not sub.paused:\n                self._give(entry, now)\n",
        "            if sub.queue:\n                self._give(entry, now)\n",
    ),
    plant(
        "a used connection passes for a new one",
        "_core/core.py",
        "            if waiter.fresh and (entry.uses or entry.was_idle):\n",
        "            if waiter.fresh and entry.was_idle:\n",
    ),
    # ── age ─────────────────────────────────────────────────────────────────────
    plant(
        "a connection is lent at the very end of its time",
        "_core/core.py",
        "            if now < entry.lapses_at:\n",
        "            if now <= entry.lapses_at:\n",
    ),
    plant(
        "a connection is handed over at the very end of its lifetime",
        "_core/core.py",
        "        if now >= entry.expires_at:\n            return CloseReason.LIFETIME\n",
        "        if now > entry.expires_at:\n            return CloseReason.LIFETIME\n",
    ),
    plant(
        "a connection is lent once more than it may be",
        "_core/core.py",
        "        if entry.uses >= sub.max_uses:\n",
        "        if entry.uses > sub.max_uses:\n",
    ),
    plant(
        "a connection dialled before a clear is lent after it",
        "_core/core.py",
        "        if entry.generation != sub.generation:\n            return CloseReason.CLEARED\n",
        "",
    ),
    plant(
        "what lapsed during a check is handed over",
        "_core/core.py",
        "        if unused and reason is None and now >= entry.lapses_at:\n"
        "            reason = CloseReason.IDLE_TIME\n",
        "",
    ),
    plant(
        "jitter lengthens lifetimes",
        "_core/core.py",
        "config.max_connection_lifetime * (1.0 - jitter)",
        "config.max_connection_lifetime * (1.0 + jitter)",
    ),
    plant(
        "a timer of a forgotten endpoint dials",
        "_core/ledger.py",
        "        self.timetable.drop(sub)\n",
        "",
    ),
    plant(
        "a forgotten endpoint is warmed when the pool has a slot again",
        "_core/ledger.py",
        "            self.pool_limit.cold.pop(sub, None)\n",
        "            pass\n",
    ),
    plant(
        "warmth waits for a sweep when the pool has a slot again",
        "_core/dials.py",
        "            self._pool_limit.cold[sub] = None\n",
        "",
    ),
    plant(
        "waiters behind the first are not refused in time",
        "_core/core.py",
        "                self.timetable.look_at(sub, waiter.deadline)\n                break\n",
        "                break\n",
    ),
    plant(
        "the timetable goes off too late",
        "_core/timetable.py",
        "        if at < self.next_at:  # noqa: PLR1730 - min() costs more\n",
        "        if at > self.next_at:  # noqa: PLR1730 - min() costs more\n",
    ),
    plant(
        "a waiter that has gone is refused all the same",
        "_core/timetable.py",
        "            elif item.queued:\n",
        "            else:\n",
    ),
    # ── counters and rates ──────────────────────────────────────────────────────
    plant(
        "closing connections of the pool are counted down twice",
        "_core/ledger.py",
        "                self.pool_limit.closing -= 1\n",
        "                self.pool_limit.closing -= 2\n",
    ),
    plant(
        "after a failure all waiters are dialled for at once",
        "_core/dials.py",
        "                wanted = 1  # one attempt a delay, however many wait\n",
        "                pass\n",
    ),
    plant(
        "delays do not grow",
        "_core/dials.py",
        "            sub.failures += 1\n",
        "            pass\n",
    ),
    plant(
        "warming goes before those in line",
        "_core/dials.py",
        (
            "        if self._pool_limit is not None and (self._pool_limit.wanted"
            " or not self._pool_limit.limit.has_free_slot):\n"
        ),
        "        if self._pool_limit is not None and not self._pool_limit.limit.has_free_slot:\n",
    ),
    plant(
        "a pool that has closed keeps what comes back",
        "_core/core.py",
        "        if not self.is_open:\n            return CloseReason.POOL_CLOSED\n",
        "",
    ),
    plant(
        "a connection may be lent while it closes",
        "_values/states.py",
        "        (_S.CLOSING, _S.CLOSED),  # its file is closed\n",
        (
            "        (_S.CLOSING, _S.CLOSED),  # its file is closed\n"
            "        (_S.CLOSING, _S.ACTIVE),\n"
        ),
    ),
)

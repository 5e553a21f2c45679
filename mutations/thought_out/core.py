"""Bugs planted in the core: forgotten pumps, swapped orders, counts off by one, rules left out."""

from __future__ import annotations

from typing import Final

from mutations.bug import Mutation

SCENARIOS: Final = (
    "tests/unit/core/test_failures.py",
    "tests/unit/core/test_checks.py",
    "tests/unit/core/test_dials.py",
    "tests/unit/core/test_pool_limit.py",
    "tests/unit/core/test_core.py",
    "tests/unit/core/test_core_times.py",
    "tests/unit/core/test_core_orders.py",
    "tests/unit/core/test_retiring.py",
    "tests/unit/core/test_keeping.py",
    "tests/unit/core/test_queue.py",
    "tests/unit/core/test_ledger.py",
    "tests/unit/core/test_records.py",
    "tests/unit/core/test_timetable.py",
    "tests/unit/core/test_heap.py",
    "tests/unit/core/test_limit.py",
    "tests/unit/core/test_gate.py",
    "tests/unit/core/test_ending.py",
    "tests/unit/core/test_chores.py",
    "tests/unit/values/test_states.py",
    "tests/model/test_state_machine.py",
    "tests/model/test_model.py",
)
SESSIONS: Final = (
    "tests/unit/core/test_sharing.py",
    "tests/unit/core/test_sessions.py",
    "tests/unit/pool/test_sharing.py",
    "tests/unit/pool/test_driver.py",
)
RETIRING: Final = ("tests/unit/core/test_retiring.py",)


def plant(name: str, file: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(name=name, file=file, old=old, new=new, tests=tests or SCENARIOS)


MUTATIONS: Final = (
    # ── lost wake-ups ───────────────────────────────────────────────────────────
    plant(
        "a close frees its slot and nobody is told",
        "_core/ledger.py",
        "            sub.note_rules()\n        self.touched[sub] = None\n",
        "            sub.note_rules()\n",
    ),
    plant(
        "a failed dial frees its slot and nobody is told",
        "_core/failures.py",
        "        self._ledger.strike_off(entry)\n",
        "        self._ledger.strike_off(entry)\n"
        "        self._ledger.touched.pop(entry.sub, None)\n",
    ),
    plant(
        "a higher limit starts no dials",
        "_core/orders.py",
        "        sub.note_rules()\n        self._ledger.touch(sub)\n        surplus",
        "        sub.note_rules()\n        surplus",
    ),
    plant(
        "a resumed endpoint waits for something else to happen",
        "_core/orders.py",
        "        sub.gate.resumed()\n        sub.note_rules()\n        self._ledger.touch(sub)\n",
        "        sub.gate.resumed()\n        sub.note_rules()\n",
    ),
    plant(
        "a waiter that leaves takes its place in the pool's line with it",
        "_core/ledger.py",
        "                self.pool_limit.stand_in_line(sub, None, 0)\n"
        "                self._look_again_at(sub)\n",
        "                self.pool_limit.stand_in_line(sub, None, 0)\n",
    ),
    plant(
        "nobody is told when the delay after a failure is over",
        "_core/dials.py",
        "            self._look_when_gate_opens(sub)\n            wanted = 0\n",
        "            wanted = 0\n",
    ),
    plant(
        "an attempt after a failure does not put off the next one",
        "_core/gate.py",
        "or not circuit.has_more_trials:\n                self._put_off(now)\n",
        "or not circuit.has_more_trials:\n                pass\n",
    ),
    plant(
        "an idle connection holds the slot of one who wants a new connection",
        "_core/dials.py",
        "        if sub.idle and sub.waiting:\n            self._make_way_for_fresh(sub, now)\n",
        "",
    ),
    plant(
        "a full endpoint forgets to look again when its gate opens",
        "_core/dials.py",
        "                self._look_when_gate_opens(sub)\n"
        "                return\n"
        "            if not self.must_make_way(",
        "                return\n            if not self.must_make_way(",
    ),
    plant(
        "a full pool evicts nothing",
        "_core/dials.py",
        "            elif not (limit.lacks_slots and self._make_room()):\n",
        "            elif limit.lacks_slots or not self._make_room():\n",
    ),
    # ── slots ───────────────────────────────────────────────────────────────────
    plant(
        "a slot of the pool is never repaid",
        "_core/ledger.py",
        "        sub.limit.repay(entry)\n        self.pool_limit.limit.repay(entry)\n",
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
        "_core/dials.py",
        "    lacking = min(sub.count_needed() - sub.count_coming(), sub",
        "    lacking = min(sub.count_needed(), sub",
    ),
    plant(
        "lent surplus is kept when it comes back",
        "_core/keeping.py",
        "    if sub.count_surplus() > 0:\n        return CloseReason.SURPLUS\n    if sub.waiting",
        "    if sub.waiting",
    ),
    plant(
        "what is closing already counts as surplus",
        "_core/records.py",
        "        going = self.closing + self.count_leaving() + self.void\n",
        "        going = self.count_leaving() + self.void\n",
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
        "_core/dials.py",
        "            waiter: AnyWaiter | None = sub.queue.find(is_unprovided=True)\n",
        "            waiter: AnyWaiter | None = sub.queue.find_youngest()\n",
    ),
    plant(
        "the youngest waiter is served first",
        "_core/serving.py",
        "            waiter = next(iter(queue.line)) if is_simple",
        "            waiter = next(reversed(queue.line)) if is_simple",
    ),
    plant(
        "whoever is put back last stands first",
        "_core/queue.py",
        "            heap = self._aside[kind] = Heap()\n"
        "        self.rows[waiter] = heap, heap.push(waiter.number, waiter)\n",
        "            heap = self._aside[kind] = Heap()\n"
        "        self.rows[waiter] = heap, heap.push(-waiter.number, waiter)\n",
    ),
    plant(
        "the newest idle connection of the pool is evicted, not the oldest",
        "_core/pool_limit.py",
        "        first = next(iter(self._idle), None)\n",
        "        first = next(reversed(self._idle), None)\n",
    ),
    plant(
        "the first in line may be passed once too often",
        "_core/pool_limit.py",
        "        return first is not None and first.overtaken >= MAX_OVERTAKES\n",
        "        return first is not None and first.overtaken > MAX_OVERTAKES\n",
    ),
    plant(
        "the first in line may be passed for ever",
        "_core/pool_limit.py",
        "            first.overtaken += 1\n",
        "            pass\n",
    ),
    plant(
        "an endpoint that has left the line is still first",
        "_core/pool_limit.py",
        "        if row is not None:\n            self._line.drop(row)\n",
        "",
    ),
    # ── what belongs to whom ────────────────────────────────────────────────────
    plant(
        "a waiter that has gone leaves its claim in line",
        "_core/ledger.py",
        "                self.pool_limit.stand_in_line(sub, None, 0)\n"
        "                self._look_again_at(sub)\n",
        "                self._look_again_at(sub)\n",
    ),
    plant(
        "a waiter that has gone still counts as dialled for",
        "_core/ledger.py",
        "        if waiter.coming is not None:\n            self._abandon(waiter.coming)\n",
        "        if waiter.coming is not None:\n            pass\n",
    ),
    plant(
        "a waiter put back counts on a dial that is over",
        "_core/ledger.py",
        "        if coming is not None and coming.awaited_by is not waiter:\n"
        "            coming = waiter.coming = None\n",
        "",
    ),
    plant(
        "a failed dial fails whoever is oldest",
        "_core/failures.py",
        "                self._ledger.refuse(awaited_by, WaitOutcome.DIAL_FAILED, error)\n",
        "                oldest = sub.queue.find() or awaited_by\n"
        "                self._ledger.refuse(oldest, WaitOutcome.DIAL_FAILED, error)\n",
    ),
    plant(
        "a paused endpoint keeps its place in line",
        "_core/orders.py",
        "        sub.gate.paused()\n"
        "        sub.note_rules()\n"
        "        self._ledger.pool_limit.stand_in_line(sub, None, 0)\n",
        "        sub.gate.paused()\n        sub.note_rules()\n",
    ),
    plant(
        "a return in a pause is handed over",
        "_core/serving.py",
        "        while sub.waiting and not sub.gate.is_paused:\n",
        "        while sub.waiting:\n",
    ),
    plant(
        "a used connection passes for a new one",
        "_core/serving.py",
        "            is_used = entry.uses > 0 or entry.was_idle\n",
        "            is_used = entry.was_idle\n",
    ),
    # ── age ─────────────────────────────────────────────────────────────────────
    plant(
        "a connection is lent at the very end of its time",
        "_core/serving.py",
        "            if now < entry.lapses_at:\n                return entry\n",
        "            if now <= entry.lapses_at:\n                return entry\n",
    ),
    plant(
        "a connection is handed over at the very end of its lifetime",
        "_core/keeping.py",
        "    if now >= entry.expires_at:\n        return CloseReason.LIFETIME\n",
        "    if now > entry.expires_at:\n        return CloseReason.LIFETIME\n",
    ),
    plant(
        "a connection is lent once more than it may be",
        "_core/keeping.py",
        "    if entry.uses >= sub.max_uses:\n",
        "    if entry.uses > sub.max_uses:\n",
    ),
    plant(
        "a connection dialled before a clear is lent after it",
        "_core/keeping.py",
        "    if entry.generation != sub.generation:\n        return CloseReason.CLEARED\n",
        "",
    ),
    plant(
        "what lapsed during a check is handed over",
        "_core/keeping.py",
        "    if entry.was_idle and now >= entry.lapses_at:",
        "    if False:",
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
        "_core/pool_limit.py",
        "        self.cold.pop(sub, None)\n",
        "",
    ),
    plant(
        "warmth waits for a sweep when the pool has a slot again",
        "_core/warming.py",
        "            self._pool_limit.cold[sub] = None\n",
        "",
    ),
    plant(
        "waiters behind the first are not refused in time",
        "_core/chores.py",
        "                timetable.look_at(sub, waiter.deadline)\n                return\n",
        "                return\n",
    ),
    plant(
        "the timetable goes off too late",
        "_core/timetable.py",
        "        if at < self.next_at:  # noqa: PLR1730 - min() costs more\n",
        "        if at > self.next_at:  # noqa: PLR1730 - min() costs more\n",
    ),
    plant(
        "a waiter that has gone is refused all the same",
        "_core/chores.py",
        "                if item.queued:",
        "                if True:",
    ),
    # ── counters and rates ──────────────────────────────────────────────────────
    plant(
        "closing connections of the pool are counted down twice",
        "_core/pool_limit.py",
        "        self.closing -= 1\n",
        "        self.closing -= 2\n",
    ),
    plant(
        "after a failure all waiters are dialled for at once",
        "_core/gate.py",
        "        return self._failures > 0 or self.circuit_state is not CircuitState.CLOSED\n",
        "        return self.circuit_state is not CircuitState.CLOSED\n",
    ),
    plant(
        "delays do not grow",
        "_core/gate.py",
        "            self._failures += 1\n",
        "",
    ),
    plant(
        "warming goes before those in line",
        "_core/warming.py",
        "        if self._pool_limit.wanted or not self._pool_limit.limit.has_free_slot:\n",
        "        if not self._pool_limit.limit.has_free_slot:\n",
    ),
    plant(
        "a pool that has closed keeps what comes back",
        "_core/serving.py",
        "        reason = why_not_kept(entry, now) if self._pool.is_open else",
        "        reason = why_not_kept(entry, now) if True else",
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
    # ── who is told of an outage ──────────────────────────────────────────────────
    plant(
        "those whom a return will serve are told that a dial has failed",
        "_core/outgoing.py",
        "    return bool(sub.reserved) or sub.active > sub.outgoing\n",
        "    return bool(sub.reserved)\n",
    ),
    plant(
        "those whom another dial may serve are told that one has failed",
        "_core/failures.py",
        "    return sub.connecting > sub.void or is_in_circulation(sub)\n",
        "    return is_in_circulation(sub)\n",
    ),
    plant(
        "one who wants a new connection waits on because others are lent",
        "_core/failures.py",
        "            if awaited_by.fresh or not is_helped:\n",
        "            if not is_helped:\n",
    ),
    plant(
        "everybody is told of an outage while connections are lent",
        "_core/failures.py",
        "        if is_over and not _may_be_helped(sub):\n",
        "        if is_over and not sub.connecting > sub.void:\n",
    ),
    plant(
        "everybody is told of an outage while another dial is under way",
        "_core/failures.py",
        "        if is_over and not _may_be_helped(sub):\n",
        "        if is_over and not (sub.active or sub.reserved):\n",
    ),
    plant(
        "an outage has no grace",
        "_core/failures.py",
        "        is_over = since is not None and now - since >= sub.config.outage_grace\n",
        "        is_over = since is not None\n",
    ),
    plant(
        "the grace of an outage lasts a moment too long",
        "_core/failures.py",
        "        is_over = since is not None and now - since >= sub.config.outage_grace\n",
        "        is_over = since is not None and now - since > sub.config.outage_grace\n",
    ),
    plant(
        "the grace begins anew with each failure",
        "_core/gate.py",
        "        if self.outage_since is None:\n            self.outage_since = now\n",
        "        self.outage_since = now\n",
    ),
    plant(
        "those who came after the dial had begun are told of its failure",
        "_core/chores.py",
        "        if waiter is None or waiter.number > outage.arrivals:\n",
        "        if waiter is None:\n",
    ),
    plant(
        "a dial does not know who had come when it began",
        "_core/ledger.py",
        "        entry: AnyEntry = Entry(self._dials, sub, now, arrivals=self.arrivals)\n",
        "        entry: AnyEntry = Entry(self._dials, sub, now)\n",
    ),
    plant(
        "those who warm are not told of an outage",
        "_core/failures.py",
        "Outage(error, entry.arrivals, list(sub.warmers))",
        "Outage(error, entry.arrivals)",
    ),
    plant(
        "one who warms is not told that its dial has failed",
        "_core/failures.py",
        "        elif awaited_by is not None:\n"
        "            self._ledger.end_warming(awaited_by, error)\n",
        "",
    ),
    plant(
        "news of an outage is told though the next dial has succeeded",
        "_core/core.py",
        "            sub.outage = None  # the news is out of date\n",
        "            pass\n",
    ),
    plant(
        "a connection that is lost early is no failure",
        "_core/failures.py",
        "        entry.sub.gate.failed(error, now, began_at=entry.created_at, in_doubt=True)\n",
        "        entry.sub.gate.is_in_doubt = True\n",
    ),
    plant(
        "whoever waits is not told of a connection that is lost early",
        "_core/failures.py",
        "        self._spread(entry, error, None, now)\n",
        "",
    ),
    plant(
        "a success beside the first failure has all who wait dialled for",
        "_core/gate.py",
        "        if is_news and not self.is_in_doubt:\n",
        "        if not self.is_in_doubt:\n",
        "tests/unit/core/test_gate.py",
    ),
    plant(
        "a dial alone ends the doubt",
        "_core/gate.py",
        "        if is_news and not self.is_in_doubt:\n            self._recover()\n",
        "        if is_news:\n            self._recover()\n",
    ),
    plant(
        "a lease that ends well leaves the doubt",
        "_core/failures.py",
        "        sub.gate.proved()\n",
        "",
    ),
    plant(
        "what returns is not looked at closely while its endpoint is in doubt",
        "_core/failures.py",
        "        entry.sub.note_rules()\n",
        "",
    ),
    plant(
        "min_idle is dialled for nobody while dials fail",
        "_core/warming.py",
        " < sub.max_idle_time and sub.gate.is_trusted\n",
        " < sub.max_idle_time\n",
    ),
    # ── what nobody waits for ─────────────────────────────────────────────────────
    plant(
        "a dial that nobody waits for does not make way",
        "_core/dials.py",
        "        entry = self._pool_limit.find_longest_idle() or self._pool_limit.find_spare()\n",
        "        entry = self._pool_limit.find_longest_idle()\n",
    ),
    plant(
        "a check whose caller has gone does not make way",
        "_core/records.py",
        "        if self.spare_checks and self.checking > self.queue.count_usual():\n"
        "            return next(iter(self.spare_checks))\n",
        "",
    ),
    plant(
        "a dial that its own endpoint needs makes way",
        "_core/records.py",
        "        if self.spare_dials and self.count_coming() > self.count_needed():\n",
        "        if self.spare_dials:\n",
    ),
    plant(
        "nobody expects the slot of a dial that makes way",
        "_core/ledger.py",
        "        self._forsake(entry)\n"
        "        if self.pool_limit.is_limited:\n"
        "            self.pool_limit.closing_began()\n",
        "        self._forsake(entry)\n",
    ),
    plant(
        "a dial in vain counts as supply",
        "_core/records.py",
        "        return usual + self.connecting - self.void\n",
        "        return usual + self.connecting\n",
    ),
    plant(
        "a dial that a clear has doomed goes on",
        "_core/orders.py",
        "        if entry.state is _CONNECTING:\n"
        "            self._ledger.give_up(entry)\n"
        "        elif",
        "        if entry.state is _CONNECTING:\n            pass\n        elif",
    ),
    plant(
        "a reset under way is no supply",
        "_core/records.py",
        "        used = self.checking + self.resetting\n",
        "        used = self.checking\n",
        *SESSIONS,
    ),
    plant(
        "a check under way is no supply",
        "_core/records.py",
        "        used = self.checking + self.resetting\n",
        "        used = self.resetting\n",
    ),
    plant(
        "a check whose caller has gone is waited for though others are idle",
        "_core/serving.py",
        "            if waiter is None and sub.checking >= sub.queue.count_usual():\n",
        "            if sub.checking >= sub.queue.count_usual():\n",
    ),
    plant(
        "where nobody may wait, an idle connection is no reason to queue",
        "_core/dials.py",
        "        if has_idle and not (fresh or sub.waiting or sub.gate.is_paused):\n"
        "            return True\n",
        "",
    ),
    plant(
        "one for whom a dial is under way is not refused in time",
        "_core/ledger.py",
        "        if not waiter.is_timed:\n            self.timetable.add(waiter)\n\n    def let_go",
        "\n    def let_go",
    ),
    plant(
        "those who want new connections and came later have others make way",
        "_core/queue.py",
        "        return last is not None and (waiter is None or last.number < waiter.number)\n",
        "        return last is not None\n",
    ),
    # ── what a check has found ────────────────────────────────────────────────────
    plant(
        "an answer to a check is forgotten",
        "_core/checks.py",
        "        entry.checked_at = now\n",
        "",
    ),
    plant(
        "one connection that does not answer condemns all",
        "_core/checks.py",
        "            if sub.silent > 1:\n",
        "            if sub.silent > 0:\n",
    ),
    plant(
        "two connections that do not answer condemn no other",
        "_core/checks.py",
        "            if sub.silent > 1:\n",
        "            if sub.silent > 2:\n",
    ),
    plant(
        "an answer does not begin the count of the silent anew",
        "_core/checks.py",
        "        entry.sub.silent = 0\n",
        "",
    ),
    plant(
        "what has answered since goes with the silent",
        "_core/checks.py",
        "        if is_free and silent_since(entry) <= since:\n",
        "        if is_free:\n",
    ),
    plant(
        "what is checked in the background is lent",
        "_core/ledger.py",
        "        entry.lapses_at = -math.inf\n",
        "",
    ),
    plant(
        "what lapses while it is checked in the background is kept",
        "_core/checks.py",
        "        elif entry.state is _IDLE and (now >= entry.lapses_at or ",
        "        elif entry.state is _IDLE and (",
    ),
    plant(
        "what was passed over during its check comes to the bottom of the stack",
        "_core/serving.py",
        "        for entry in reversed(reserved):\n            self._ledger.push_idle(entry)\n",
        "        for entry in reversed(reserved):\n"
        "            self._ledger.push_idle(entry)\n"
        "            sub.idle = {entry: None} | sub.idle\n",
    ),
    plant(
        "a connection that is put back is the youngest of all",
        "_core/pool_limit.py",
        "        if entry.idle_since >= self._latest:\n",
        "        if True:\n",
    ),
    # ── how many are kept, and why they go ────────────────────────────────────────
    plant(
        "max_idle keeps nobody from staying",
        "_core/keeping.py",
        "    if len(sub.idle) >= sub.max_idle:\n        return CloseReason.SURPLUS\n",
        "",
    ),
    plant(
        "max_idle closes what somebody waits for",
        "_core/keeping.py",
        "    if sub.waiting or sub.warmers:\n        return None\n",
        "",
    ),
    plant(
        "a release asks for no closer look at what max_idle forbids",
        "_core/records.py",
        "        may_exceed = self.max_idle < math.inf or not self.max_idle_time\n",
        "        may_exceed = not self.max_idle_time\n",
    ),
    plant(
        "what was lent when its name moved is closed as cleared",
        "_core/orders.py",
        "            self.retiring.retire(entry, CloseReason.MOVED)\n",
        "            self.retiring.retire(entry, CloseReason.CLEARED)\n",
    ),
    plant(
        "what was lent when its name moved is kept",
        "_core/retiring.py",
        "        elif entry.state is _ACTIVE:\n            doom(entry, reason)\n",
        "        elif entry.state is _ACTIVE and reason is not CloseReason.MOVED:\n"
        "            doom(entry, reason)\n",
    ),
    plant(
        "a release keeps what its holder has retired",
        "_core/keeping.py",
        "    if entry.doomed is not None:\n        return entry.doomed\n",
        "",
    ),
    plant(
        "a check holds up what has to go",
        "_core/orders.py",
        "        for entry in list(sub.reserved):  # a check must not hold up what has to go\n"
        "            self._ledger.condemn(entry, CloseReason.CLEARED, gracefully=False)\n",
        "",
    ),
    # ── a few at a time ───────────────────────────────────────────────────────────
    plant(
        "an endpoint that has rested once rests for ever",
        "_core/chores.py",
        "                item.is_resting = False\n",
        "                pass\n",
    ),
    plant(
        "the pump does not rest amid the dials of one endpoint",
        "_core/dials.py",
        "            for _ in range(min(wanted, PIECE)):\n",
        "            for _ in range(wanted):\n",
    ),
    plant(
        "what is left of long work is never done",
        "_core/chores.py",
        "        if sub.outage is not None or sub.chores:\n"
        "            self._ledger.timetable.look_at(sub, now)\n",
        "",
    ),
    plant(
        "a clear forgets the connections beyond the first piece",
        "_core/chores.py",
        "        chore = Chore(do, deque(items))\n",
        "        chore = Chore(do, deque([*items][:PIECE]))\n",
    ),
    plant(
        "those who time out together are all refused in one step",
        "_core/chores.py",
        "        for _ in range(PIECE):\n            waiter = next(iter(sub.queue.line), None)\n",
        "        while True:\n            waiter = next(iter(sub.queue.line), None)\n",
    ),
    plant(
        "a heap that cleans up forgets what it has not moved",
        "_core/heap.py",
        "        return min(rows[0], left[0])\n",
        "        return rows[0]\n",
    ),
    # ── sessions: shared, reset, remembered ───────────────────────────────────────
    plant(
        "one more shares a connection than it can take",
        "_core/sharing.py",
        "            0 < entry.holders < entry.capacity\n",
        "            0 < entry.holders <= entry.capacity\n",
        *SESSIONS,
    ),
    plant(
        "the room of one who leaves a shared connection wakes nobody",
        "_core/sharing.py",
        "        entry.holders -= 1\n"
        "        self._note_room(entry)\n"
        "        self._ledger.touch(entry.sub)\n",
        "        entry.holders -= 1\n        self._note_room(entry)\n",
        *SESSIONS,
    ),
    plant(
        "nobody looks for room for one who queues behind another",
        "_core/ledger.py",
        "        if sub.idle or sub.roomy or sub.is_scarce",
        "        if sub.idle or sub.is_scarce",
        *SESSIONS,
    ),
    plant(
        "a spoilt shared connection takes new leases",
        "_core/sharing.py",
        "            and entry.doomed is None\n",
        "",
        *SESSIONS,
    ),
    plant(
        "a shared connection that goes away is kept",
        "_core/sharing.py",
        "            doom(entry, CloseReason.DISCARDED)\n",
        "            pass\n",
        *SESSIONS,
    ),
    plant(
        "the emptiest shared connection is preferred",
        "_core/sharing.py",
        "            entry = max(sub.roomy, key=_fill_of)",
        "            entry = min(sub.roomy, key=_fill_of)",
        *SESSIONS,
    ),
    plant(
        "a shared connection that is too old takes new leases",
        "_core/sharing.py",
        "            if now < entry.expires_at and entry.uses",
        "            if entry.uses",
        *SESSIONS,
    ),
    plant(
        "a shared connection from before a clear takes new leases",
        "_core/ledger.py",
        "        sub.roomy = nothing()\n",
        "",
        *SESSIONS,
    ),
    plant(
        "those who share overtake another endpoint without end",
        "_core/sharing.py",
        " or limit.must_make_way(waiter):\n",
        ":\n",
        *SESSIONS,
    ),
    plant(
        "the first to leave a shared connection takes it along",
        "_core/core.py",
        "        if self.sharing.leave(entry, now):\n"
        "            keeping.begin_idling(entry, now)\n",
        "        self.sharing.leave(entry, now)\n        if True:\n"
        "            keeping.begin_idling(entry, now)\n",
        *SESSIONS,
    ),
    plant(
        "each waiter is dialled for though one connection serves many",
        "_core/records.py",
        "max(math.ceil(waiting / self.per_dial), min(waiting, 1)) if self.shares else waiting",
        "waiting",
        *SESSIONS,
    ),
    plant(
        "a session is not reset between leases",
        "_core/serving.py",
        "        elif is_used and sub.resets:\n",
        "        elif is_used and sub.resets and entry.uses > 1:\n",
        *SESSIONS,
    ),
    plant(
        "a reset that fails takes the slot with it",
        "_core/core.py",
        "        keeping.begin_idling(entry, now)\n"
        "        self.returned_unused(entry, reason, now)\n",
        "        keeping.begin_idling(entry, now)\n"
        "        if reason is None:\n"
        "            self.returned_unused(entry, reason, now)\n",
        *SESSIONS,
    ),
    plant(
        "what is closed amid its reset is still being reset in the books",
        "_core/ledger.py",
        "            if entry.is_resetting:\n                self.end_reset(entry)\n",
        "",
        *SESSIONS,
    ),
    plant(
        "a key leads to a connection that is closed",
        "_core/ledger.py",
        "        affinity.forget(entry)\n",
        "",
        *SESSIONS,
    ),
    plant(
        "what serves a new key is found by its old one, too",
        "_core/affinity.py",
        "    forget(entry)\n    entry.affinity = key\n",
        "    entry.affinity = key\n",
        *SESSIONS,
    ),
    plant(
        "a key leads to a connection past its end",
        "_core/serving.py",
        "        if entry is None or entry not in sub.idle or now >= entry.lapses_at:\n",
        "        if entry is None or entry not in sub.idle:\n",
        *SESSIONS,
    ),
    plant(
        "a lent connection that will not be kept counts as help",
        "_core/outgoing.py",
        "        entry.sub.outgoing += 1\n",
        "        pass\n",
    ),
    plant(
        "what was lent when the endpoint was cleared counts as help",
        "_core/ledger.py",
        "        sub.void, sub.outgoing = sub.connecting, sub.active\n",
        "        sub.void = sub.connecting\n",
    ),
    plant(
        "what will not be kept is counted for ever",
        "_core/ledger.py",
        "            sub.outgoing -= is_outgoing(entry)\n",
        "",
    ),
    plant(
        "a shared connection is lent once more for each who is about to begin",
        "_core/sharing.py",
        "            about_to_begin = entry.holders - len(entry.leases)\n",
        "            about_to_begin = 0\n",
        *SESSIONS,
    ),
    plant(
        "one who wants a new connection is starved by those who join",
        "_core/sharing.py",
        "            if self._dials.must_make_way(sub, waiter, now) or ",
        "            if ",
        *SESSIONS,
    ),
    plant(
        "one shared connection after the other makes way for the same waiter",
        "_core/pool_limit.py",
        "        if self.closing + len(self.draining) >= self.count_wanted():\n",
        "        if not self.lacks_slots:\n",
        *SESSIONS,
    ),
    plant(
        "what has made way is expected to make way for ever",
        "_core/ledger.py",
        "            self.pool_limit.draining.pop(entry, None)\n",
        "",
        *SESSIONS,
    ),
    # ── retiring one after the other, and the pool's own limit ─────────────────
    plant(
        "all connections are retired at the first one's time",
        "_core/retiring.py",
        "            if not plan.left or plan.next_at > now or sub",
        "            if not plan.left or sub",
        *RETIRING,
    ),
    plant(
        "nobody looks when the next connection must be retired",
        "_core/retiring.py",
        "            self._ledger.timetable.look_at(sub, max(soon, plan.next_at))\n",
        "            pass\n",
        *RETIRING,
    ),
    plant(
        "as many as like are closing at once",
        "_core/retiring.py",
        "            if not plan.left or plan.next_at > now or sub.closing >= plan.at_once:\n",
        "            if not plan.left or plan.next_at > now:\n",
        *RETIRING,
    ),
    plant(
        "the youngest idle connection is retired first",
        "_core/retiring.py",
        "        self.left = entries[::-1]\n",
        "        self.left = entries\n",
        *RETIRING,
    ),
    plant(
        "what is lent is retired for nothing",
        "_core/retiring.py",
        "            doom(entry, reason)\n",
        "            pass\n",
        *RETIRING,
    ),
    plant(
        "a dial outlives its retirement",
        "_core/retiring.py",
        "            self._ledger.give_up(entry)\n",
        "            pass\n",
        *RETIRING,
    ),
    plant(
        "a shared connection that is retired is joined",
        "_core/retiring.py",
        "            sub.roomy = without(sub.roomy, entry)\n",
        "            without(dict(sub.roomy), entry)\n",
        *RETIRING,
    ),
    plant(
        "an endpoint is forgotten with its plan",
        "_core/core.py",
        "        is_kept = now < kept_until or sub in self._chores.retiring.plans\n",
        "        is_kept = now < kept_until\n",
        *RETIRING,
    ),
    plant(
        "a plan that is over is kept",
        "_core/retiring.py",
        "        if not plans:\n            del self.plans[sub]\n",
        "",
        *RETIRING,
    ),
    plant(
        "a lower limit of the pool closes what is closing already once more",
        "_core/orders.py",
        "        surplus = len(limit.borrowers) - pool_limit.closing - total\n",
        "        surplus = len(limit.borrowers) - total\n",
        *RETIRING,
    ),
    plant(
        "a higher limit of the pool starts no dials",
        "_core/orders.py",
        "        if next_sub is not None:\n            self._ledger.touch(next_sub)\n",
        "",
        *RETIRING,
    ),
    plant(
        "a lower limit of the pool takes the longest leases first",
        "_core/orders.py",
        'sorted(leases, key=attrgetter("since"), reverse=True)',
        'sorted(leases, key=attrgetter("since"))',
        *RETIRING,
    ),
    plant(
        "a limit of the pool that is raised again goes on closing connections",
        "_core/orders.py",
        "        if number == self._pool_sizes:  # otherwise the limit has changed again\n",
        "        if number:\n",
        *RETIRING,
    ),
)

"""Bugs in the straight line, in what may be straight, and in what its leases cost the books."""

from __future__ import annotations

from typing import Final

from mutations.bug import Mutation

CORE: Final = (
    "tests/unit/core/test_straight.py",
    "tests/unit/core/test_core.py",
    "tests/unit/core/test_core_orders.py",
    "tests/unit/core/test_failures.py",
    "tests/unit/core/test_records.py",
    "tests/model/test_state_machine.py",
    "tests/model/test_model.py",
)
LENDING: Final = (
    "tests/unit/lending/test_straight.py",
    "tests/unit/lending/test_block.py",
    "tests/unit/lending/test_acquire.py",
    "tests/regressions/test_broken_off.py",
)
STATISTICS: Final = (
    "tests/unit/stats/test_histogram.py",
    "tests/unit/stats/test_counters.py",
    "tests/unit/stats/test_snapshot.py",
    "tests/unit/core/test_straight.py",
    *LENDING,
)
DIAGNOSIS: Final = ("tests/unit/engine/test_diagnosis.py", *LENDING)
_FILES: Final = {
    "core": CORE,
    "lending": LENDING,
    "engine": LENDING,
    "pool": ("tests/unit/pool/test_fork.py", *LENDING),
    "stats": STATISTICS,
}


def plant(name: str, file: str, old: str, new: str, *tests: str) -> Mutation:
    folder = file.removeprefix("_").partition("/")[0]
    return Mutation(name=name, file=file, old=old, new=new, tests=tests or _FILES[folder])


MUTATIONS: Final = (
    # ── taking ──────────────────────────────────────────────────────────────────
    plant(
        "what has lapsed is lent straight",
        "_core/straight.py",
        "    if now >= entry.lapses_at:\n        idle[entry] = None\n        return None\n",
        "",
    ),
    plant(
        "a connection is lent straight at the very end of its time",
        "_core/straight.py",
        "    if now >= entry.lapses_at:\n",
        "    if now > entry.lapses_at:\n",
    ),
    plant(
        "what has lapsed is lost on the straight line",
        "_core/straight.py",
        "        idle[entry] = None\n        return None\n",
        "        return None\n",
    ),
    plant(
        "the oldest is lent straight, not the newest",
        "_core/straight.py",
        "    entry, _ = idle.popitem()\n",
        "    entry = next(iter(idle))\n    del idle[entry]\n",
    ),
    plant(
        "what is lent straight is idle in the books",
        "_core/straight.py",
        "    entry.state = _ACTIVE\n",
        "",
    ),
    plant(
        "a hit does not count as a use of its endpoint",
        "_core/straight.py",
        "    entry.state = _ACTIVE\n    sub.used_at = now\n",
        "    entry.state = _ACTIVE\n",
    ),
    # ── beginning ───────────────────────────────────────────────────────────────
    plant(
        "a lease that begins straight is in no books",
        "_core/straight.py",
        "    entry.leases = (lease,)\n",
        "",
    ),
    plant(
        "a lease that begins straight is no use",
        "_core/straight.py",
        "    entry.uses = uses + 1\n",
        "",
    ),
    plant(
        "a lease that begins straight began long ago",
        "_core/straight.py",
        "    lease.since = now\n",
        "    lease.since = 0.0\n",
    ),
    plant(
        "a lease that begins straight has no holder",
        "_core/straight.py",
        "    lease.holder = holder\n",
        "    lease.holder = entry  # type: ignore[assignment]\n",
    ),
    plant(
        "the first lease of a warmed connection is reused",
        "_core/straight.py",
        "    if uses:\n",
        "    if True:\n",
    ),
    plant(
        "a hit is not counted",
        "_core/straight.py",
        "        entry.sub.counters.hits += 1\n",
        "        pass\n",
    ),
    plant(
        "the wait of a warmed connection's first lease is not counted",
        "_core/straight.py",
        "        counters.note_wait(0.0)  # before all else: if it raises, no lease has begun\n",
        "",
    ),
    plant(
        "a warmed connection's first lease is not counted",
        "_core/straight.py",
        "        counters.other_leases += 1\n",
        "",
    ),
    plant(
        "a lease has begun though it could not be counted",
        "_core/straight.py",
        "        counters.note_wait(0.0)  # before all else: if it raises, no lease has begun\n",
        "        entry.uses = uses + 1\n        counters.note_wait(0.0)\n",
    ),
    # ── keeping ─────────────────────────────────────────────────────────────────
    plant(
        "what is doomed or too old is kept straight",
        "_core/straight.py",
        "        if now >= lapses_at:  # it is too old, or doomed\n            return False\n",
        "",
    ),
    plant(
        "what has just reached the end of its life is kept straight",
        "_core/straight.py",
        "        if now >= lapses_at:  # it",
        "        if now > lapses_at:  # it",
    ),
    plant(
        "what is kept straight outlives its lifetime",
        "_core/straight.py",
        "        lapses_at = entry.expires_at\n        if now >= lapses_at:",
        "        if now >= entry.expires_at:",
    ),
    plant(
        "the lease of what is kept straight stays in the books",
        "_core/straight.py",
        "    entry.leases = ()\n    entry.was_idle = True\n",
        "    entry.was_idle = True\n",
    ),
    plant(
        "what is kept straight has not been idle",
        "_core/straight.py",
        "    entry.was_idle = True\n",
        "",
    ),
    plant(
        "the idle time of what is kept straight does not begin anew",
        "_core/straight.py",
        "    entry.was_idle = True\n    entry.idle_since = now\n",
        "    entry.was_idle = True\n",
    ),
    plant(
        "what is kept straight lapses as before",
        "_core/straight.py",
        "    entry.lapses_at = lapses_at\n    entry.state",
        "    entry.state",
    ),
    plant(
        "what is kept straight is active in the books",
        "_core/straight.py",
        "    entry.state = _IDLE\n",
        "",
    ),
    plant(
        "a return that is kept straight is no use of its endpoint",
        "_core/straight.py",
        "    entry.state = _IDLE\n    sub.used_at = now\n",
        "    entry.state = _IDLE\n",
    ),
    plant(
        "what is kept straight is not on the idle stack",
        "_core/straight.py",
        "    sub.idle[entry] = None\n    if len",
        "    if len",
    ),
    plant(
        "how long a lease lasted that ends straight is not counted",
        "_core/straight.py",
        "    recent.append(now - lease.since)  # first: if",
        "    # first: if",
    ),
    plant(
        "the durations of what is kept straight pile up",
        "_core/straight.py",
        "        counters.use_time = counters.use_time.settled()\n    return True\n",
        "        pass\n    return True\n",
    ),
    # ── passing on ──────────────────────────────────────────────────────────────
    plant(
        "what is too old or doomed is handed over straight",
        "_core/straight.py",
        "    if now >= expires_at or queue.rows",
        "    if queue.rows",
    ),
    plant(
        "one who waits for a dial of its own is overtaken straight",
        "_core/straight.py",
        " or queue.rows or",
        " or",
    ),
    plant(
        "one who wants a new connection is overtaken straight",
        "_core/straight.py",
        " or queue.fresh_line or",
        " or",
    ),
    plant(
        "load is not shed on the straight line",
        "_core/straight.py",
        " or queue.codel is not None:\n",
        ":\n",
    ),
    plant(
        "one whose time is up is served straight",
        "_core/straight.py",
        "    if waiter.deadline <= now:\n        return None\n",
        "",
    ),
    plant(
        "one whose time is up this very moment is served straight",
        "_core/straight.py",
        "    if waiter.deadline <= now:\n",
        "    if waiter.deadline < now:\n",
    ),
    plant(
        "the youngest is served straight",
        "_core/straight.py",
        "next(iter(queue.line))",
        "next(reversed(queue.line))",
    ),
    plant(
        "the lease before a hand-over stays in the books",
        "_core/straight.py",
        "    entry.leases = ()\n    entry.was_idle = False\n",
        "    entry.was_idle = False\n",
    ),
    plant(
        "what is handed over straight was idle",
        "_core/straight.py",
        "    entry.was_idle = False\n",
        "",
    ),
    plant(
        "the idle time of what is handed over straight does not begin anew",
        "_core/straight.py",
        "    entry.was_idle = False\n    entry.idle_since = now\n",
        "    entry.was_idle = False\n",
    ),
    plant(
        "what is handed over straight outlives its lifetime",
        "_core/straight.py",
        "    entry.lapses_at = lapses_at if lapses_at < expires_at else expires_at",
        "    entry.lapses_at = lapses_at",
    ),
    plant(
        "what is handed over straight lapses as before",
        "_core/straight.py",
        "    entry.lapses_at = lapses_at if lapses_at < expires_at else expires_at",
        "    entry.lapses_at = entry.lapses_at",
    ),
    plant(
        "a hand-over is no use of its endpoint",
        "_core/straight.py",
        "    sub.used_at = now\n    del queue.line[waiter]\n",
        "    del queue.line[waiter]\n",
    ),
    plant(
        "one who was served straight stays in line",
        "_core/straight.py",
        "    del queue.line[waiter]\n",
        "",
    ),
    plant(
        "one who was served straight is counted as waiting",
        "_core/straight.py",
        "    del queue.line[waiter]\n    sub.waiting -= 1\n",
        "    del queue.line[waiter]\n",
    ),
    plant(
        "one who was served straight is still queued",
        "_core/straight.py",
        "    waiter.queued = False\n    waiter.entry = entry\n",
        "    waiter.entry = entry\n",
    ),
    plant(
        "one who was served straight does not get the connection",
        "_core/straight.py",
        "    waiter.entry = entry\n",
        "",
    ),
    plant(
        "one who was served straight is counted as timed",
        "_core/straight.py",
        "        sub.timed -= 1\n        timetable.remove(waiter)\n    return waiter\n",
        "        timetable.remove(waiter)\n    return waiter\n",
    ),
    plant(
        "the deadline of one who was served straight stays in the timetable",
        "_core/straight.py",
        "        timetable.remove(waiter)\n    return waiter\n",
        "    return waiter\n",
    ),
    # ── leaving ─────────────────────────────────────────────────────────────────
    plant(
        "one who was cancelled is still queued",
        "_core/straight.py",
        "    waiter.queued = False\n    del line[waiter]\n",
        "    del line[waiter]\n",
    ),
    plant(
        "one who was cancelled stays in line",
        "_core/straight.py",
        "    del line[waiter]\n",
        "",
    ),
    plant(
        "one who was cancelled is counted as waiting",
        "_core/straight.py",
        "    del line[waiter]\n    sub.waiting -= 1\n",
        "    del line[waiter]\n",
    ),
    plant(
        "one who was cancelled is counted as timed",
        "_core/straight.py",
        "        sub.timed -= 1\n        timetable.remove(waiter)\n    return True\n",
        "        timetable.remove(waiter)\n    return True\n",
    ),
    plant(
        "the deadline of one who was cancelled stays in the timetable",
        "_core/straight.py",
        "        timetable.remove(waiter)\n    return True\n",
        "    return True\n",
    ),
    plant(
        "what is under way for one who was cancelled is forgotten",
        "_core/straight.py",
        "or waiter not in line:\n        return False\n    waiter.queued",
        "or False:\n        return False\n    waiter.queued",
    ),
    plant(
        "a cancelled wait is not counted",
        "_lending/undoing.py",
        "                sub.counters.acquire_cancelled += 1\n                return\n",
        "                return\n",
    ),
    plant(
        "how long one waited who was cancelled is not counted",
        "_lending/undoing.py",
        "                sub.counters.note_wait(waited)\n",
        "",
    ),
    plant(
        "what a cancelled waiter was given is lost",
        "_lending/undoing.py",
        "and not waiter.queued and waiter.entry is None\n",
        "and not waiter.queued\n",
    ),
    plant(
        "observers do not hear of a cancelled wait",
        "_lending/undoing.py",
        " and waiter.task is not None and not self._news.acquire_failed:",
        " and waiter.task is not None:",
    ),
    # ── joining ─────────────────────────────────────────────────────────────────
    plant(
        "one who comes due before those in front of it is timed by them",
        "_core/ledger.py",
        "needs_row = sub.timed or deadline < next(reversed(line), waiter).deadline",
        "needs_row = sub.timed",
        "tests/unit/core/test_ledger.py",
    ),
    plant(
        "one behind those with rows has none",
        "_core/ledger.py",
        "needs_row = sub.timed or deadline",
        "needs_row = deadline",
        "tests/unit/core/test_ledger.py",
    ),
    plant(
        "durations are counted when a hand-over has half happened",
        "_core/straight.py",
        "    recent = counters.use_time.recent\n    if len(recent) >= MOST_RECENT:  # before",
        "    recent = counters.use_time.recent\n"
        "    del queue.line[waiter]\n"
        "    queue.line[waiter] = None\n"
        "    waiter.queued = False\n"
        "    if len(recent) >= MOST_RECENT:  # before",
    ),
    plant(
        "the durations of what is handed over straight pile up",
        "_core/straight.py",
        "        counters.use_time = counters.use_time.settled()\n"
        "        recent = counters.use_time.recent\n",
        "        pass\n",
    ),
    plant(
        "a duration is noted where nobody counts any more",
        "_core/straight.py",
        "        counters.use_time = counters.use_time.settled()\n"
        "        recent = counters.use_time.recent\n",
        "        counters.use_time = counters.use_time.settled()\n",
    ),
    # ── what is straight ────────────────────────────────────────────────────────
    plant(
        "a pool with observers of leases is straight",
        "_core/records.py",
        "self.is_straight = self.is_plain and not (",
        "self.is_straight = not (",
    ),
    plant(
        "a paused endpoint is straight",
        "_core/records.py",
        "not (is_special or gate.is_paused)",
        "not is_special",
    ),
    plant(
        "an endpoint with connections from before a clear is straight",
        "_core/records.py",
        "is_limited or bool(self.survivors)",
        "is_limited",
    ),
    plant(
        "an endpoint whose connections have their uses counted is straight",
        "_core/records.py",
        "self.max_uses < math.inf or self.check_after < math.inf",
        "self.check_after < math.inf",
    ),
    plant(
        "an endpoint whose connections are checked is straight",
        "_core/records.py",
        "self.max_uses < math.inf or self.check_after < math.inf",
        "self.max_uses < math.inf",
    ),
    plant(
        "an endpoint where what is idle is wanted is straight",
        "_core/records.py",
        "self.is_strict or self.is_scarce or is_limited",
        "self.is_strict or is_limited",
    ),
    plant(
        "an endpoint that looks closely at what returns is straight",
        "_core/records.py",
        "self.is_strict or self.is_scarce or is_limited",
        "self.is_scarce or is_limited",
    ),
    plant(
        "an endpoint that keeps few is straight",
        "_core/records.py",
        "may_exceed = self.max_idle < math.inf or not",
        "may_exceed = not",
    ),
    plant(
        "an endpoint that keeps nothing is straight",
        "_core/records.py",
        " < math.inf or not self.max_idle_time\n",
        " < math.inf\n",
    ),
    plant(
        "an endpoint whose sessions are reset is straight",
        "_core/records.py",
        "may_exceed or self.resets or",
        "may_exceed or",
    ),
    plant(
        "an endpoint whose connections are shared is straight",
        "_core/records.py",
        "self.resets or self.shares or gate.is_in_doubt",
        "self.resets or gate.is_in_doubt",
    ),
    plant(
        "an endpoint in doubt is straight",
        "_core/records.py",
        "self.resets or self.shares or gate.is_in_doubt",
        "self.resets or self.shares",
    ),
    plant(
        "an endpoint with too many connections is straight",
        "_core/records.py",
        "is_special or self.count_surplus() > 0",
        "is_special",
    ),
    plant(
        "an endpoint of a pool with a limit of its own is straight",
        "_core/records.py",
        "self.shares_limit or self.min_idle or self.warmers or",
        "self.min_idle or self.warmers or",
    ),
    plant(
        "an endpoint that is kept warm is straight",
        "_core/records.py",
        "self.shares_limit or self.min_idle or self.warmers or",
        "self.shares_limit or self.warmers or",
    ),
    plant(
        "an endpoint that is being warmed is straight",
        "_core/records.py",
        "self.shares_limit or self.min_idle or self.warmers or",
        "self.shares_limit or self.min_idle or",
    ),
    plant(
        "the core does not ask whether the shell must be told of leases",
        "_core/core.py",
        "self._resets, self._shares, self._is_plain\n",
        "self._resets, self._shares, True\n",
        *LENDING,
    ),
    plant(
        "the rules of a new endpoint are those of its configuration alone",
        "_core/core.py",
        "        sub.note_rules()\n",
        "",
    ),
    plant(
        "nobody notes that a limit has changed",
        "_core/orders.py",
        "        sub.note_rules()\n        self._ledger.touch(sub)\n        surplus",
        "        self._ledger.touch(sub)\n        surplus",
    ),
    plant(
        "nobody notes that an endpoint is paused",
        "_core/orders.py",
        "        sub.gate.paused()\n        sub.note_rules()\n",
        "        sub.gate.paused()\n",
    ),
    plant(
        "an endpoint that was paused is never straight again",
        "_core/orders.py",
        "        sub.gate.resumed()\n        sub.note_rules()\n",
        "        sub.gate.resumed()\n",
    ),
    plant(
        "nobody notes that an endpoint is unhealthy",
        "_core/orders.py",
        "        standing.bar_groups(sub, bars=is_unhealthy)\n        sub.note_rules()\n",
        "        standing.bar_groups(sub, bars=is_unhealthy)\n",
    ),
    plant(
        "nobody notes that an endpoint is being warmed",
        "_core/orders.py",
        "        sub.warmers = entered(sub.warmers, warmer, None)\n        sub.note_rules()\n",
        "        sub.warmers = entered(sub.warmers, warmer, None)\n",
    ),
    plant(
        "an endpoint that was warmed is never straight again",
        "_core/ledger.py",
        "        warmer.sub.note_rules()\n",
        "",
    ),
    plant(
        "nobody notes that an endpoint was cleared",
        "_core/ledger.py",
        "        sub.spare_dials = nothing()\n        sub.note_rules()\n",
        "        sub.spare_dials = nothing()\n",
    ),
    plant(
        "an endpoint is never straight again once something was in the way",
        "_core/ledger.py",
        "        if not sub.is_straight:  # it may have been the last that was in the way\n"
        "            sub.note_rules()\n",
        "",
    ),
    plant(
        "an endpoint that has proved itself is not straight again",
        "_core/failures.py",
        "        sub.gate.proved()\n        sub.note_rules()\n",
        "        sub.gate.proved()\n",
    ),
    plant(
        "what is doomed does not expire",
        "_core/outgoing.py",
        "    entry.expires_at = -math.inf",
        "    entry.expires_at = entry.expires_at",
    ),
    plant(
        "connections that are closing count as lent",
        "_core/records.py",
        " + self.connecting + self.closing\n",
        " + self.connecting\n",
    ),
    plant(
        "connections that were cleared while idle count as lent",
        "_core/records.py",
        "len(self.idle) + len(self.leaving) +",
        "len(self.idle) +",
    ),
    plant(
        "connections that are dialled count as lent",
        "_core/records.py",
        " + self.connecting + self.closing\n",
        " + self.closing\n",
    ),
    # ── acquire ─────────────────────────────────────────────────────────────────
    plant(
        "a hit does not ask whether the endpoint is straight",
        "_lending/acquire.py",
        "            and sub.is_straight\n            and not",
        "            and not",
    ),
    plant(
        "one who wants a new connection gets an idle one",
        "_lending/acquire.py",
        "            and not fresh\n",
        "",
    ),
    plant(
        "one who names a key gets any idle connection",
        "_lending/acquire.py",
        "            and affinity is None\n",
        "",
    ),
    plant(
        "idle connections are lent in every thread, and when the pool is closed",
        "_lending/acquire.py",
        "            and self._engine.lends_in == get_ident()\n",
        "",
        "tests/unit/pool/test_threads.py",
        *LENDING,
    ),
    plant(
        "an idle connection is lent unseen",
        "_lending/acquire.py",
        "                    if entry.link.poll(0):\n",
        "                    if False:\n",
    ),
    plant(
        "what needs a closer look is lost",
        "_lending/acquire.py",
        "                    self._undoing.keep(entry)  # it needs a closer look\n",
        "",
    ),
    plant(
        "what needs a closer look is lent after it",
        "_lending/acquire.py",
        "it needs a closer look\n                        entry = None\n",
        "it needs a closer look\n",
    ),
    plant(
        "a hit is not fair",
        "_lending/acquire.py",
        "                        await checkpoint()\n                        if entry.state",
        "                        if entry.state",
    ),
    plant(
        "a hit that was closed amid its checkpoint is lent",
        "_lending/acquire.py",
        "                    if entry.state is _ACTIVE and sub.is_straight:\n",
        "                    if sub.is_straight:\n",
    ),
    plant(
        "a hit that was cleared amid its checkpoint is lent",
        "_lending/acquire.py",
        "                    if entry.state is _ACTIVE and sub.is_straight:\n",
        "                    if entry.state is _ACTIVE:\n",
    ),
    plant(
        "a block does not hear of its hit",
        "_lending/acquire.py",
        "                            if block is not None:\n"
        "                                block.connection = connection\n",
        "",
    ),
    plant(
        "a hit that was closed and is cancelled is idle again",
        "_lending/undoing.py",
        "is_usual and entry and entry.state is _ACTIVE and",
        "is_usual and entry and",
    ),
    plant(
        "a hit that was cleared or is one too many is idle again when it is cancelled",
        "_lending/undoing.py",
        " is _OPEN and sub.is_straight\n",
        " is _OPEN\n",
    ),
    plant(
        "a hit that was retired and is cancelled is idle again",
        "_lending/undoing.py",
        " and entry.doomed is None:\n",
        ":\n",
    ),
    plant(
        "a hit that is cancelled is idle again though the pool has closed",
        "_lending/undoing.py",
        " and self._core.state is _OPEN and sub",
        " and sub",
    ),
    plant(
        "a hit that could not be looked at is idle again",
        "_lending/undoing.py",
        "is_usual = type(exc) in _HARMLESS and",
        "is_usual =",
    ),
    plant(
        "a hit that is cancelled is not on the idle stack",
        "_lending/undoing.py",
        "            sub.idle[entry] = None\n",
        "",
    ),
    plant(
        "a hit that is cancelled is active in the books",
        "_lending/undoing.py",
        "            entry.state = _IDLE\n",
        "",
    ),
    plant(
        "nobody hears of what a cancelled hit puts back",
        "_lending/undoing.py",
        "            self._core.touched[sub] = None\n",
        "",
    ),
    plant(
        "a hit that is cancelled is not counted",
        "_lending/undoing.py",
        "        with_room(partial(self.roll_back, sub, None, entry, exc, since))\n",
        "",
    ),
    plant(
        "one whose hit was closed hears of the closed pool before its connection is put back",
        "_lending/acquire.py",
        "(entry is None and self._engine.lends_in != get_ident())",
        "self._engine.lends_in != get_ident()",
    ),
    plant(
        "one whose hit was closed is lent it",
        "_lending/acquire.py",
        "entry is None or entry.state is not _ACTIVE or entry.generation != sub.generation:",
        "entry is None or entry.generation != sub.generation:",
    ),
    plant(
        "one whose hit was cleared is lent it",
        "_lending/acquire.py",
        "entry is None or entry.state is not _ACTIVE or entry.generation != sub.generation:",
        "entry is None or entry.state is not _ACTIVE:",
    ),
    plant(
        "a hit whose lease has begun, and that nobody has, is idle again",
        "_lending/undoing.py",
        "        if entry is not None and entry.leases:",
        "        if False:",
    ),
    # ── waiting where all are lent ──────────────────────────────────────────────
    plant(
        "any number may wait straight",
        "_lending/acquire.py",
        "            if deadline <= since or sub.max_waiting is not None:\n",
        "            if deadline <= since:\n",
    ),
    plant(
        "one who waits straight waits as long as anybody",
        "_lending/acquire.py",
        "        deadline = since + (sub.acquire_timeout if timeout is None else timeout)\n",
        "        deadline = since + sub.acquire_timeout\n",
    ),
    plant(
        "those who wait straight wait for a place that is free",
        "_lending/acquire.py",
        "                if len(sub.limit.borrowers) >= sub.limit.total:\n",
        "                if True:\n",
    ),
    plant(
        "one who waits straight and is refused is not told",
        "_lending/acquire.py",
        "            if entry is None:\n                self._raise_refusal(waiter, sub)\n"
        "            # A cancellation may have arrived between hand-over and our waking.\n"
        "            await checkpoint_if_cancelled()\n            now",
        "            await checkpoint_if_cancelled()\n            now",
    ),
    plant(
        "what was closed before its waiter woke is lent straight",
        "_lending/acquire.py",
        "            if entry.state is not _ACTIVE or entry.generation != sub.generation:\n"
        "                sub = self",
        "            if entry.generation != sub.generation:\n                sub = self",
    ),
    plant(
        "what was cleared before its waiter woke is lent straight",
        "_lending/acquire.py",
        "            if entry.state is not _ACTIVE or entry.generation != sub.generation:\n"
        "                sub = self",
        "            if entry.state is not _ACTIVE:\n                sub = self",
    ),
    plant(
        "a wait that breaks off leaves its place in line",
        "_lending/acquire.py",
        "            self._undoing.undo_wait(sub, waiter, exc, since)\n",
        "",
    ),
    plant(
        "a block does not hear of the lease that it has waited for",
        "_lending/acquire.py",
        "        if block is not None:\n            block.connection = connection\n"
        "        return connection\n\n    async def _acquire",
        "        return connection\n\n    async def _acquire",
    ),
    plant(
        "a lease that was waited for has not been waited for",
        "_lending/acquire.py",
        "            lease = core.lease_began(entry, current_task(), now - since, now)\n",
        "            lease = core.lease_began(entry, current_task(), 0.0, now)\n",
    ),
    plant(
        "a withdrawal never performs what it has caused",
        "_engine/engine.py",
        "            self._touched or self._effects or self._timetable.next_at"
        " < self.background.rings_at\n",
        "            False\n",
        "tests/unit/core/test_straight.py",
        "tests/unit/lending/test_waiting.py",
        *LENDING,
    ),
    plant(
        "an acquire that came to nothing is counted as none",
        "_lending/undoing.py",
        "                counters.acquire_cancelled += 1\n",
        "                pass\n",
    ),
    plant(
        "those who waited in vain have not waited",
        "_lending/undoing.py",
        "                counters.note_wait(waited)  # it has waited in vain\n",
        "                pass\n",
    ),
    # ── release ─────────────────────────────────────────────────────────────────
    plant(
        "what a block ended in does not matter on the straight line",
        "_lending/release.py",
        "                exc is None\n                and sub.is_straight",
        "                sub.is_straight",
    ),
    plant(
        "a return does not ask whether the endpoint is straight",
        "_lending/release.py",
        "                and sub.is_straight\n",
        "",
        *LENDING,
    ),
    plant(
        "what is tainted is kept straight",
        "_lending/release.py",
        "(held.taints or held.in_progress)",
        "held.in_progress",
    ),
    plant(
        "what is in use is kept straight",
        "_lending/release.py",
        "(held.taints or held.in_progress)",
        "held.taints",
    ),
    plant(
        "what was closed under its lease is kept straight",
        "_lending/release.py",
        "                and entry.state is _ACTIVE\n                and self._core",
        "                and self._core",
    ),
    plant(
        "a pool that has closed keeps what comes back straight",
        "_lending/release.py",
        "                and self._core.state is _OPEN\n",
        "",
    ),
    plant(
        "what has moved is kept straight",
        "_lending/release.py",
        "                and not entry.link.poll(0)\n",
        "",
    ),
    plant(
        "nobody is waked on the straight line",
        "_lending/release.py",
        "            self._engine.wake(waiter)\n",
        "            pass\n",
    ),
    plant(
        "a wake that raises is lost",
        "_lending/release.py",
        "            self._core.effects.append(waiter)  # whoever ends the lease wakes it, too\n",
        "",
    ),
    plant(
        "one who is not served straight is served by nobody",
        "_lending/release.py",
        "        if waiter is None:\n            return False\n",
        "        if waiter is None:\n            return True\n",
    ),
    # ── the engine ──────────────────────────────────────────────────────────────
    plant(
        "a pool that stops serving still lends",
        "_engine/engine.py",
        "        self.lends_in = 0\n        if self.core.is_open:\n",
        "        if self.core.is_open:\n",
    ),
    plant(
        "a pool that opens lends nothing straight",
        "_engine/engine.py",
        "        self.thread = self.lends_in = get_ident()\n",
        "        self.thread = get_ident()\n",
    ),
    plant(
        "a forked child lends",
        "_pool/lifecycle.py",
        "        core.state = PoolState.CLOSED\n        self._engine.lends_in = 0\n",
        "        core.state = PoolState.CLOSED\n",
    ),
    plant(
        "the idle connections of a forked child are lent in its statistics",
        "_pool/lifecycle.py",
        "                sub.limit.repay(entry)\n",
        "                pass\n",
    ),
    plant(
        "no deadlock of a straight endpoint is looked for",
        "_engine/diagnosis.py",
        "            if lease is None or type(lease.holder.custom_sleep_data) is not Waiter:\n",
        "            if True:\n",
        *DIAGNOSIS,
    ),
    plant(
        "a deadlock is looked for only while nobody waits",
        "_engine/diagnosis.py",
        "type(lease.holder.custom_sleep_data) is not Waiter:\n",
        "type(lease.holder.custom_sleep_data) is Waiter:\n",
        *DIAGNOSIS,
    ),
    plant(
        "a look for deadlocks breaks where there is no connection",
        "_engine/diagnosis.py",
        "next(iter(sub.limit.borrowers), None)  # none while its gate is shut\n",
        "next(iter(sub.limit.borrowers))\n",
        *DIAGNOSIS,
    ),
    plant(
        "a look for deadlocks breaks where the first connection is not lent",
        "_engine/diagnosis.py",
        "next(iter(first.leases), None)\n",
        "next(iter(first.leases))\n",
        *DIAGNOSIS,
    ),
    plant(
        "observers of leases hear nothing",
        "_engine/news.py",
        "            self.acquire_started or self.acquired or self.reused or self.released\n",
        "            False\n",
    ),
    plant(
        "one who only hears of ends hears nothing",
        "_engine/news.py",
        "self.acquired or self.reused or self.released\n",
        "self.acquired or self.reused\n",
    ),
    plant(
        "one who only hears of reuse hears nothing",
        "_engine/news.py",
        "self.acquired or self.reused or self.released\n",
        "self.acquired or self.released\n",
    ),
    plant(
        "one who only hears of beginnings hears nothing",
        "_engine/news.py",
        "self.acquire_started or self.acquired or self.reused",
        "self.acquire_started or self.reused",
    ),
    plant(
        "one who only hears who asks hears nothing",
        "_engine/news.py",
        "self.acquire_started or self.acquired or self.reused",
        "self.acquired or self.reused",
    ),
    # ── what a block has not ────────────────────────────────────────────────────
    plant(
        "a block does not tell how to enter it",
        "_lending/block.py",
        "        setattr(LeaseBlock, _name, NotYet(_name))",
        "        pass",
    ),
    plant(
        "a block is entered twice",
        "_lending/block.py",
        "        if self.connection is not None:\n            self._refuse_if_in_use()\n",
        "",
    ),
    plant(
        "a block cannot be used again",
        "_lending/block.py",
        "        self.connection = None\n        connection._owner",
        "        connection._owner",
    ),
    plant(
        "a block whose entry is cancelled cannot be entered again",
        "_lending/block.py",
        "(entered is not None and entered.cr_frame)",
        "entered is not None",
    ),
    # ── statistics ──────────────────────────────────────────────────────────────
    plant(
        "durations are lost when they are counted",
        "_stats/histogram.py",
        "            self.add_all(other.recent.copy())\n",
        "            pass\n",
    ),
    plant(
        "what is counted is counted twice",
        "_stats/histogram.py",
        "        new.absorb(self)\n        return new\n",
        "        new.absorb(self)\n        new.recent += self.recent\n        return new\n",
    ),
    plant(
        "counting changes what others read meanwhile",
        "_stats/histogram.py",
        "        new.absorb(self)\n        return new\n",
        "        new.absorb(self)\n        self.recent.clear()\n        return new\n",
    ),
    plant(
        "what is not counted yet is none",
        "_stats/histogram.py",
        "        return self._count + len(self.recent)\n",
        "        return self._count\n",
    ),
    plant(
        "what is not counted yet takes no time",
        "_stats/histogram.py",
        "        return sum(self.recent, self._total)\n",
        "        return self._total\n",
    ),
    plant(
        "what is not counted yet is not the longest",
        "_stats/histogram.py",
        "        return max((self._max, *self.recent))\n",
        "        return self._max\n",
    ),
    plant(
        "what is not counted yet is in no bucket",
        "_stats/histogram.py",
        "        return self.settled().copy_buckets() if self.recent else tuple(self._buckets)\n",
        "        return tuple(self._buckets)\n",
    ),
    plant(
        "what is not counted yet is in no quantile",
        "_stats/histogram.py",
        "        if self.recent:\n            return self.settled().quantiles(*shares)\n",
        "",
    ),
    plant(
        "zeros that are counted in bulk have a bucket",
        "_stats/histogram.py",
        "        begin = bisect_right(ordered, 0.0)",
        "        begin = 0",
    ),
    plant(
        "durations that are counted in bulk are a bucket off",
        "_stats/histogram.py",
        "            self._buckets[index] += end - begin\n",
        "            self._buckets[index - 1] += end - begin\n",
    ),
    plant(
        "durations that share a bucket are counted in bulk as one",
        "_stats/histogram.py",
        "            self._buckets[index] += end - begin\n",
        "            self._buckets[index] += 1\n",
    ),
    plant(
        "those that are counted in bulk take no time",
        "_stats/histogram.py",
        "        self._total = sum(ordered, self._total)\n",
        "",
    ),
    plant(
        "the longest is forgotten when it is counted in bulk",
        "_stats/histogram.py",
        "        self._max = max(self._max, longest)\n",
        "",
    ),
    plant(
        "the buckets of long durations are lost when histograms are joined",
        "_stats/histogram.py",
        "            self._reach(len(other._buckets) - 1)\n",
        "",
    ),
    plant(
        "zeros are not counted",
        "_stats/histogram.py",
        "        self._count += count\n\n",
        "        pass\n\n",
    ),
    plant(
        "hits are no leases",
        "_stats/counters.py",
        "        return self.hits + self.other_leases\n",
        "        return self.other_leases\n",
    ),
    plant(
        "hits are not reused",
        "_stats/counters.py",
        "        return self.hits + self.other_reused\n",
        "        return self.other_reused\n",
    ),
    plant(
        "hits have no wait",
        "_stats/counters.py",
        "        waits.add_zeros(self.hits)\n",
        "",
    ),
    plant(
        "nobody counts how long acquires took",
        "_stats/counters.py",
        "            self.other_waits = self.other_waits.settled()\n",
        "            self.other_waits.recent.clear()\n",
    ),
    plant(
        "the waits that are not counted yet pile up",
        "_stats/counters.py",
        "            self.other_waits = self.other_waits.settled()\n",
        "            pass\n",
    ),
    plant(
        "nobody counts how long leases lasted",
        "_stats/counters.py",
        "            self.use_time = self.use_time.settled()\n",
        "            self.use_time.recent.clear()\n",
    ),
    plant(
        "the waits of leases that begin the general way pile up",
        "_core/core.py",
        "            counters.other_waits = counters.other_waits.settled()\n",
        "            pass\n",
    ),
    plant(
        "a lease that begins the general way is never reused",
        "_core/core.py",
        "            counters.other_reused += 1\n",
        "            pass\n",
    ),
    plant(
        "a few durations are not counted in bulk",
        "_stats/histogram.py",
        "                self.add(seconds)\n",
        "                pass\n",
    ),
    plant(
        "the uses that are not counted yet pile up",
        "_stats/counters.py",
        "            self.use_time = self.use_time.settled()\n",
        "            pass\n",
    ),
    plant(
        "a summary takes each figure at another moment",
        "_stats/latency.py",
        "        histogram = histogram.settled()\n",
        "",
    ),
)

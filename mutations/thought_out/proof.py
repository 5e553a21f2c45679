"""Bugs that only show when a call is cut short, or when two things happen at the same moment."""

from __future__ import annotations

from mutations.bug import Mutation

_ACQUIRE = "tests/proof/test_cancel.py"
_RELEASE = "tests/proof/test_cancel_release.py"
_POOL = "tests/proof/test_cancel_pool.py"
_SOCKETS = "tests/proof/test_cancel_sockets.py"
_SCHEDULES = "tests/proof/test_schedules.py"
_SCHEDULES_POOL = "tests/proof/test_schedules_pool.py"
_OWN = "tests/regressions/test_own_bugs.py"
_FAILS = "tests/proof/test_fail_everywhere.py"
_CLOSES = (
    "tests/proof/test_fail_everywhere_pool.py"
    "::test_f142_a_block_is_left_whatever_fails_where_closing_must_await"
)
_WAITING = "tests/unit/lending/test_waiting.py"
_LENDING = "tests/unit/lending/test_acquire.py"
_CHECK = "tests/unit/lending/test_peer_check.py"
_CLOSING = "tests/unit/connection/test_closing.py"
_ENGINE = "tests/unit/engine/test_engine.py"
_NEWS = "tests/unit/engine/test_news.py"
_LIFECYCLE = "tests/unit/pool/test_lifecycle.py"
_DIAL = "tests/unit/dial/test_dial.py"
_DIALS = "tests/unit/core/test_dials.py"
_ENDING = "tests/unit/core/test_ending.py"
_FAILURES = "tests/unit/core/test_failures.py"
_LEDGER = "tests/unit/core/test_ledger.py"
_LIMIT = "tests/unit/core/test_pool_limit.py"
_ORDERS = "tests/unit/core/test_core_orders.py"
_TIMES = "tests/unit/core/test_core_times.py"

MUTATIONS = (
    # ── cut short ───────────────────────────────────────────────────────────────
    Mutation(
        name="a waiter that is cancelled stays in the queue",
        file="_lending/waiting.py",
        old="        engine.report_quietly(engine.core.withdrawn, waiter)\n",
        new="        pass\n",
        tests=(_WAITING, _ACQUIRE),
    ),
    Mutation(
        name="what was handed to a waiter that is cancelled then is lost",
        file="_lending/undoing.py",
        old=("            entry = waiter.entry\n            if waiter.queued:  #"),
        new="            if waiter.queued:  #",
        tests=(_ACQUIRE,),
    ),
    Mutation(
        name="a cancellation that comes after the hand-over is swallowed",
        file="_lending/acquire.py",
        old=(
            "            # A cancellation may have arrived between hand-over and our waking.\n"
            "            await checkpoint_if_cancelled()\n"
            "            if ("
        ),
        new="            if (",
        tests=(_LENDING, _ACQUIRE),
    ),
    Mutation(
        name="an idle connection is lost if its taker is cancelled",
        file="_lending/undoing.py",
        old=(
            "        if entry is not None:\n"
            "            self.put_back(entry)\n"
            "        now = since  # unless the clock tells\n"
        ),
        new=(
            "        if entry is not None and waiter is not None:\n"
            "            self.put_back(entry)\n"
            "        now = since  # unless the clock tells\n"
        ),
        tests=(_ACQUIRE,),
    ),
    Mutation(
        name="a connection is lost if its check breaks off",
        file="_lending/peer_check.py",
        old=(
            "        finally:\n"
            "            if lease is not None:\n"
            "                end_lease(lease)\n"
            "            engine.report(core.checked, entry, reason)\n"
        ),
        new=(
            "        finally:\n"
            "            if lease is not None:\n"
            "                end_lease(lease)\n"
            "        engine.report(core.checked, entry, reason)\n"
        ),
        tests=(_FAILS,),
    ),
    Mutation(
        name="a connection whose check was cut short is lent again",
        file="_lending/peer_check.py",
        old="                    reason = end_exchange(entry.link, None)\n",
        new="                    reason = None\n",
        tests=(_CHECK,),
    ),
    Mutation(
        name="an exception in the block does not spoil the connection",
        file="_connection/hand_over.py",
        old="        is_cut = exc is not None and not taints & VOUCHED\n",
        new="        is_cut = exc is not None and bool(taints & CUT_SEND)\n",
        tests=(_RELEASE,),
    ),
    Mutation(
        name="a receive that a time-out in the block cut short is forgotten",
        file="_connection/exchange.py",
        old=(
            "        except BaseException:\n"
            "            self.taints |= CUT_RECEIVE\n"
            "            raise\n"
        ),
        new="        except BaseException:\n            self.taints &= ~OWED\n            raise\n",
        tests=(_RELEASE,),
    ),
    Mutation(
        name="a task that still receives when the lease ends is overlooked",
        file="_connection/exchange.py",
        old="            data = await self.stream.receive_some(max_bytes)\n",
        new="            self.in_progress -= 1\n            try:\n"
        "                data = await self.stream.receive_some(max_bytes)\n"
        "            finally:\n                self.in_progress += 1\n",
        tests=(_RELEASE,),
    ),
    Mutation(
        name="a close by force waits for as long as the stream likes",
        file="_connection/closing.py",
        old="(shield=True, deadline=trio.current_time() + timeout) as scope:\n",
        new="(shield=True) as scope:\n",
        tests=(_CLOSING, _RELEASE),
    ),
    Mutation(
        name="a stream that fails to close takes its slot with it",
        file="_engine/engine.py",
        old=(
            "        try:\n"
            "            await self.attendant.close(entry, gracefully)\n"
            "        finally:\n"
            "            try:\n"
        ),
        new=(
            "        if True:\n"
            "            await self.attendant.close(entry, gracefully)\n"
            "            try:\n"
        ),
        tests=(_ENGINE, _CLOSES, _RELEASE),
    ),
    Mutation(
        name="the end of a pool that is cancelled is cancelled, too",
        file="_pool/lifecycle.py",
        old=(
            "            with trio.CancelScope(shield=True, deadline=now + bound):\n"
            "                await self._wait_for_end()\n"
            "        finally:\n"
            "            insist(self._host.cancel, self._engine.log)\n"
            "            try:\n"
            "                with trio.CancelScope(shield=True, deadline=now + 2 * bound):\n"
        ),
        new=(
            "            with trio.CancelScope(deadline=now + bound):\n"
            "                await self._wait_for_end()\n"
            "        finally:\n"
            "            insist(self._host.cancel, self._engine.log)\n"
            "            try:\n"
            "                with trio.CancelScope(deadline=now + 2 * bound):\n"
        ),
        tests=(_LIFECYCLE, _POOL),
    ),
    Mutation(
        name="a close that is cancelled leaves the leases alone",
        file="_pool/lifecycle.py",
        old=(
            "        finally:\n"
            "            try:\n"
            "                await self._interrupt(None)  # noqa: ASYNC102"
        ),
        new=(
            "            await self._interrupt(None)\n"
            "        finally:\n"
            "            try:\n"
            "                pass  # noqa: ASYNC102"
        ),
        tests=(_LIFECYCLE, _POOL),
    ),
    Mutation(
        name="dials go on when the pool closes",
        file="_engine/engine.py",
        old="                self.dialler.begin_to_end()\n",
        new="                pass\n",
        tests=(_LIFECYCLE, _POOL),
    ),
    Mutation(
        name="whoever waits for warmth waits on when the pool has closed",
        file="_core/ending.py",
        old="                ledger.end_warming(warmer, None)\n",
        new="                ledger.leave_warming(warmer)\n",
        tests=(_ENDING, _POOL),
    ),
    Mutation(
        name="somebody who is told to stop warming is remembered",
        file="_core/orders.py",
        old="        if warmer.queued:\n            self._ledger.leave_warming(warmer)\n",
        new="        pass\n",
        tests=(_DIALS, _WAITING),
    ),
    Mutation(
        name="a handshake that is cut short leaves its socket open",
        file="_dial/dial.py",
        old=(
            "        await close_now(stream, log)  # noqa: ASYNC102 - shields and bounds itself\n"
            "        raise\n"
        ),
        new="        raise\n",
        tests=(_DIAL, _SOCKETS),
    ),
    # ── at the same moment ──────────────────────────────────────────────────────
    Mutation(
        name="whoever comes last is served first",
        file="_core/ledger.py",
        old=("        line[waiter] = None\n        sub.used_at = now\n"),
        new=(
            "        line[waiter] = None\n"
            "        line.move_to_end(waiter, last=False)\n"
            "        sub.used_at = now\n"
        ),
        tests=(_SCHEDULES,),
    ),
    Mutation(
        name="the pump does not run when a waiter leaves",
        file="_core/core.py",
        old="        self._ledger.dequeue(waiter)\n",
        new=("        self._ledger.dequeue(waiter)\n        self.touched.clear()\n"),
        tests=(_LIMIT, _SCHEDULES_POOL),
    ),
    Mutation(
        name="the pump does not run when a dial has failed",
        file="_core/failures.py",
        old="        self._spread(entry, error, awaited_by, now)\n",
        new=(
            "        self._spread(entry, error, awaited_by, now)\n"
            "        self._ledger.touched.clear()\n"
        ),
        tests=(_FAILURES, _SCHEDULES),
    ),
    Mutation(
        name="the pump does not run when a connection is gone",
        file="_core/core.py",
        old="        entry.sub.counters.count_closed(entry.reason)\n",
        new=(
            "        entry.sub.counters.count_closed(entry.reason)\n        self.touched.clear()\n"
        ),
        tests=(_SCHEDULES,),
    ),
    Mutation(
        name="a slot is free before its file is closed",
        file="_core/ledger.py",
        old="        entry.move(ConnectionState.CLOSING)\n",
        new="        entry.move(ConnectionState.CLOSING)\n        sub.limit.repay(entry)\n",
        tests=(_SCHEDULES,),
    ),
    Mutation(
        name="a dial that began before a clear may be lent after it",
        file="_core/keeping.py",
        old="    if entry.generation != sub.generation:\n",
        new="    if entry.uses and entry.generation != sub.generation:\n",
        tests=(_ORDERS, _SCHEDULES),
    ),
    Mutation(
        name="what was handed over a moment before a clear is lent after it",
        file="_core/orders.py",
        old="        elif entry.state is _ACTIVE and not entry.leases:\n",
        new="        elif entry.state is _ACTIVE and len(entry.leases) > 1:\n",
        tests=(_ORDERS, _SCHEDULES),
    ),
    Mutation(
        name="whoever had its check fail goes to the end of the queue",
        file="_core/ledger.py",
        old=(
            "        waiter.coming = entry\n"
            "        for sub in waiter.subs:\n"
            "            standing.put_aside"
        ),
        new=(
            "        waiter.coming = entry\n"
            "        if entry is None:\n"
            "            self.arrivals += 1\n"
            "            waiter.number = self.arrivals\n"
            "        for sub in waiter.subs:\n"
            "            standing.put_aside"
        ),
        tests=(_LEDGER, _SCHEDULES_POOL),
    ),
    Mutation(
        name="what is closing elsewhere is not awaited before more is closed",
        file="_core/dials.py",
        old="            elif not (limit.lacks_slots and self._make_room()):\n",
        new="            elif not self._make_room():\n",
        tests=(_LIMIT, _SCHEDULES_POOL),
    ),
    Mutation(
        name="an expired connection is handed over",
        file="_core/straight.py",
        old="now >= expires_at or",
        new="now > expires_at or",
        tests=(_TIMES, _SCHEDULES),
    ),
    Mutation(
        name="a pool that closes dials for those who come in that moment",
        file="_core/core.py",
        old="            if self.state is not _OPEN or sub.is_resting:\n",
        new="            if sub.is_resting:\n",
        tests=(_ENDING, _SCHEDULES_POOL),
    ),
    Mutation(
        name="the first in line is overtaken without end",
        file="_core/serving.py",
        old="                    if limit.must_make_way(waiter):\n",
        new="                    if False:\n",
        tests=(_LIMIT, _SCHEDULES_POOL),
    ),
    # ── found by the proofs ─────────────────────────────────────────────────────
    Mutation(
        name="a health hook's handle is taken for a lease",
        file="_lending/release.py",
        old="            if held is CLOSED_STREAM or lease not in entry.leases:\n",
        new="            if held is CLOSED_STREAM:\n",
        tests=(_CHECK, _OWN),
    ),
    Mutation(
        name="a callback's own doings are told before what it was told",
        file="_engine/news.py",
        old=("        if self.is_held:\n            return\n"),
        new="",
        tests=(_NEWS, _OWN),
    ),
)

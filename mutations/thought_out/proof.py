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

MUTATIONS = (
    # ── cut short ───────────────────────────────────────────────────────────────
    Mutation(
        name="a waiter that is cancelled stays in the queue",
        file="_lending/waiting.py",
        old="    engine.core.withdrawn(waiter, engine.now())\n",
        new="",
        tests=(_ACQUIRE,),
    ),
    Mutation(
        name="what was handed to a waiter that is cancelled then is lost",
        file="_lending/acquire.py",
        old="            self._give_up(waiter)\n",
        new="            pass\n",
        tests=(_ACQUIRE,),
    ),
    Mutation(
        name="a cancellation that comes after the hand-over is swallowed",
        file="_lending/acquire.py",
        old=(
            "            await checkpoint_if_cancelled()"
            "  # that may have come after the hand-over\n"
        ),
        new="            pass\n",
        tests=(_ACQUIRE,),
    ),
    Mutation(
        name="an idle connection is lost if its taker is cancelled",
        file="_lending/acquire.py",
        old=(
            "            if entry is not None:\n"
            "                self._put_back(entry)\n"
            "            self._failed"
        ),
        new="            self._failed",
        tests=(_ACQUIRE,),
    ),
    Mutation(
        name="a connection is lost if its check is cancelled",
        file="_lending/acquire.py",
        old=(
            "            except BaseException as exc:\n                self._put_back(entry, exc)\n"
        ),
        new="            except BaseException:\n",
        tests=(_ACQUIRE,),
    ),
    Mutation(
        name="a connection whose check was cut short is lent again",
        file="_lending/acquire.py",
        old=(
            "        reason = why_not_clean(entry.link,"
            " exc if entry.link.exchange.taints else None)\n"
        ),
        new="        reason = None\n",
        tests=(_ACQUIRE,),
    ),
    Mutation(
        name="an exception in the block does not spoil the connection",
        file="_connection/hand_over.py",
        old="    if exc is not None and not exchange.taints & VOUCHED:\n",
        new="    if exc is not None and exchange.taints & CUT_SEND:\n",
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
        old="        with trio.CancelScope(shield=True, deadline=trio.current_time() + timeout):\n",
        new="        with trio.CancelScope(shield=True):\n",
        tests=(_RELEASE,),
    ),
    Mutation(
        name="a stream that fails to close takes its slot with it",
        file="_engine/engine.py",
        old="    async def _close_by_force(self, entry: Entry) -> None:\n        try:\n"
        "            await close_by_force(entry.link.stream)\n        finally:\n",
        new="    async def _close_by_force(self, entry: Entry) -> None:\n        if True:\n"
        "            await entry.link.stream.aclose()\n",
        tests=(_RELEASE,),
    ),
    Mutation(
        name="the end of a pool that is cancelled is cancelled, too",
        file="_pool/lifecycle.py",
        old="with trio.CancelScope(shield=True):  # bounded",
        new="with trio.CancelScope():  # bounded",
        tests=(_POOL,),
    ),
    Mutation(
        name="a close that is cancelled leaves the leases alone",
        file="_pool/lifecycle.py",
        old="        finally:\n            try:\n                self._interrupt(None)\n",
        new=(
            "            self._interrupt(None)\n"
            "        finally:\n"
            "            try:\n"
            "                pass\n"
        ),
        tests=(_POOL,),
    ),
    Mutation(
        name="dials go on when the pool closes",
        file="_pool/lifecycle.py",
        old="        self._engine.give_up_dials()\n",
        new="",
        tests=(_POOL,),
    ),
    Mutation(
        name="whoever waits for warmth waits on when the pool has closed",
        file="_core/core.py",
        old="            for warmer in list(sub.warmers):\n"
        "                self._ledger.end_warming(warmer, None)\n            self._ledger.forget",
        new="            self._ledger.forget",
        tests=(_POOL,),
    ),
    Mutation(
        name="somebody who is told to stop warming is remembered",
        file="_lending/waiting.py",
        old="        engine.core.warming_ended(warmer)\n",
        new="",
        tests=(_POOL,),
    ),
    Mutation(
        name="a handshake that is cut short leaves its socket open",
        file="_dial/dial.py",
        old="        if not try_close_now(stream):\n",
        new="        if False:\n",
        tests=(_SOCKETS,),
    ),
    # ── at the same moment ──────────────────────────────────────────────────────
    Mutation(
        name="whoever comes last is served first",
        file="_core/ledger.py",
        old="            sub.queue[waiter] = None\n",
        new=(
            "            sub.queue[waiter] = None\n"
            "            sub.queue.move_to_end(waiter, last=False)\n"
        ),
        tests=(_SCHEDULES,),
    ),
    Mutation(
        name="the pump does not run when a waiter leaves",
        file="_core/core.py",
        old="        self._ledger.dequeue(waiter)\n        for sub in waiter.subs:\n"
        "            self._pump(sub, now)\n",
        new="        self._ledger.dequeue(waiter)\n",
        tests=(_SCHEDULES_POOL,),
    ),
    Mutation(
        name="the pump does not run when a dial has failed",
        file="_core/core.py",
        old=(
            "                self._ledger.end_warming(debtor, error)\n"
            "        self._pump(sub, now)\n"
        ),
        new="                self._ledger.end_warming(debtor, error)\n",
        tests=(_SCHEDULES,),
    ),
    Mutation(
        name="the pump does not run when a connection is gone",
        file="_core/core.py",
        old="        sub.counters.count_closed(entry.reason)\n        self._pump(sub, now)\n",
        new="        sub.counters.count_closed(entry.reason)\n",
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
        file="_core/core.py",
        old="        if entry.generation != sub.generation:\n",
        new="        if entry.uses and entry.generation != sub.generation:\n",
        tests=(_SCHEDULES,),
    ),
    Mutation(
        name="what was handed over a moment before a clear is lent after it",
        file="_core/core.py",
        old="            if entry.state is _ACTIVE and not entry.leases:\n",
        new="            if entry.state is _ACTIVE and entry.leases > 1:\n",
        tests=(_SCHEDULES,),
    ),
    Mutation(
        name="whoever had its check fail goes to the end of the queue",
        file="_lending/acquire.py",
        old="is_first=had_turn)",
        new="is_first=failed > 1)",
        tests=(_SCHEDULES_POOL,),
    ),
    Mutation(
        name="what is closing elsewhere is not awaited before more is closed",
        file="_core/dials.py",
        old="            elif pool_limit.idle_by_age and pool_limit.closing < pool_limit.wanted:\n",
        new="            elif pool_limit.idle_by_age:\n",
        tests=(_SCHEDULES_POOL,),
    ),
    Mutation(
        name="an expired connection is handed over",
        file="_core/core.py",
        old="        if now >= entry.expires_at:\n            return CloseReason.LIFETIME\n",
        new="        if now > entry.expires_at:\n            return CloseReason.LIFETIME\n",
        tests=(_SCHEDULES,),
    ),
    Mutation(
        name="a pool that closes dials for those who come in that moment",
        file="_core/core.py",
        old="        self.is_open = False\n        for sub in self.subs.values():\n"
        "            for waiter in list(sub.queue):\n"
        "                self._ledger.refuse(waiter, WaitOutcome.POOL_CLOSED)\n",
        new="        self.is_open = False\n        for sub in self.subs.values():\n",
        tests=(_SCHEDULES_POOL,),
    ),
    Mutation(
        name="the first in line is overtaken without end",
        file="_core/pool_limit.py",
        old="        if first.claim.overtaken < MAX_OVERTAKES:\n",
        new="        if first.claim.overtaken <= MAX_OVERTAKES:\n",
        tests=(_SCHEDULES_POOL,),
    ),
    # ── found by the proofs ─────────────────────────────────────────────────────
    Mutation(
        name="a health hook's handle is taken for a lease",
        file="_lending/acquire.py",
        old="        if entry is None or not entry.leases:",
        new="        if entry is None:",
        tests=(_OWN,),
    ),
    Mutation(
        name="a callback's own doings are told before what it was told",
        file="_engine/engine.py",
        old="        if self._is_telling:\n            return\n",
        new="",
        tests=(_OWN,),
    ),
)

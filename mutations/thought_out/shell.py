"""Bugs in the shell: what lends, looks, judges, wakes, dials, closes, sweeps and ends."""

from __future__ import annotations

from mutations.bug import Mutation

_CLOSING = "tests/faults/test_closing_faults.py"
_GRACE = _CLOSING + "::test_g17_a_peer_that_hangs_costs_the_grace_and_no_more"

MUTATIONS = (
    # ── what is noted and judged ────────────────────────────────────────────────
    Mutation(
        name="a send that was cut short is not noted",
        file="_connection/exchange.py",
        old="            self.taints |= CUT_SEND\n",
        new="            pass\n",
        tests=("tests/unit/connection/test_exchange.py",),
    ),
    Mutation(
        name="a receive that was cut short is not noted",
        file="_connection/exchange.py",
        old="            self.taints |= CUT_RECEIVE\n",
        new="            pass\n",
        tests=("tests/unit/connection/test_exchange.py", "tests/regressions/test_handed_over.py"),
    ),
    Mutation(
        name="an answer that came before the question was out is its answer",
        file="_connection/exchange.py",
        old="            self.taints |= OWED\n        except BaseException:\n",
        new="        except BaseException:\n",
        tests=("tests/unit/connection/test_exchange.py",),
    ),
    Mutation(
        name="the caller's word excuses an interrupted send",
        file="_connection/exchange.py",
        old="self.taints & ~(OWED | CUT_RECEIVE) | VOUCHED",
        new="self.taints & ~(OWED | CUT_RECEIVE | CUT_SEND) | VOUCHED",
        tests=("tests/unit/connection/test_exchange.py", "tests/unit/connection/test_hand_over.py"),
    ),
    Mutation(
        name="the caller's word holds for the next caller",
        file="_connection/hand_over.py",
        old="        link.exchange.taints = 0\n",
        new="        link.exchange.taints &= VOUCHED\n",
        tests=("tests/unit/connection/test_hand_over.py",),
    ),
    Mutation(
        name="a cancellation beside an error is a cancellation",
        file="_connection/hand_over.py",
        old="        return others is None\n",
        new="        return True\n",
        tests=("tests/unit/connection/test_hand_over.py",),
    ),
    # ── the look ────────────────────────────────────────────────────────────────
    Mutation(
        name="the last records of a packet are not looked at",
        file="_connection/probe.py",
        old="return self._incoming.pending or self._ssl.pending() or self._below.poll(timeout)",
        new="return self._ssl.pending() or self._below.poll(timeout)",
        tests=("tests/unit/connection/test_probe.py",),
    ),
    Mutation(
        name="a reset is no end",
        file="_connection/probe.py",
        old="    except OSError:\n        return CloseReason.PEER_CLOSED\n",
        new="    except OSError:\n        return None\n",
        tests=("tests/unit/connection/test_probe.py",),
    ),
    # ── lending ─────────────────────────────────────────────────────────────────
    Mutation(
        name="who found a dead connection queues anew",
        file="_lending/acquire.py",
        old="is_first=had_turn",
        new="is_first=False",
        tests=("tests/unit/lending/test_peer_check.py",),
    ),
    Mutation(
        name="dead connections are tried one after the other",
        file="_lending/acquire.py",
        old="            fresh = fresh or failed >= _FAILED_CHECKS_BEFORE_FRESH\n",
        new="",
        tests=("tests/unit/lending/test_peer_check.py",),
    ),
    Mutation(
        name="what a health hook ends counts as a lease",
        file="_lending/acquire.py",
        old="        if entry is None or not entry.leases:  # ended",
        new="        if entry is None:  # ended",
        tests=("tests/unit/lending/test_peer_check.py", "tests/regressions/test_own_bugs.py"),
    ),
    # ── waiting ─────────────────────────────────────────────────────────────────
    Mutation(
        name="who warmed and was cancelled still waits",
        file="_lending/waiting.py",
        old="        engine.core.warming_ended(warmer)\n",
        new="",
        tests=("tests/unit/lending/test_waiting.py",),
    ),
    # ── the engine ──────────────────────────────────────────────────────────────
    Mutation(
        name="an idle connection is handed to a waiter unseen",
        file="_engine/engine.py",
        old="            reason = entry.link.probe()\n            if reason is not None:\n",
        new="            reason = entry.link.probe()\n            if reason is None and False:\n",
        tests=("tests/regressions/test_handed_over.py",),
    ),
    Mutation(
        name="the timer is set a second late for an earlier moment",
        file="_engine/engine.py",
        old="        self._alarm_at = self._alarm.deadline = self._timetable.next_at\n",
        new="        self._alarm_at = self._alarm.deadline = self._timetable.next_at + 1\n",
        tests=("tests/unit/lending/test_waiting.py",),
    ),
    Mutation(
        name="all connections are closed by force",
        file="_engine/engine.py",
        old="effect.gracefully and link.has_goodbye",
        new="False and link.has_goodbye",
        tests=("tests/regressions/test_slots.py::test_sqlalchemy_8145_when_all_is_cancelled",),
    ),
    # ── maintenance ─────────────────────────────────────────────────────────────
    Mutation(
        name="a long sweep lets nobody run",
        file="_pool/reap.py",
        old=(
            "                    self._engine.perform(trio.current_time())\n"
            "                    await trio.lowlevel.checkpoint()\n"
        ),
        new="                    self._engine.perform(trio.current_time())\n",
        tests=("tests/unit/pool/test_reap.py",),
    ),
    Mutation(
        name="nothing that is idle is seen to end",
        file="_pool/reap.py",
        old=(
            "                    self._core.inspected(entry, entry.link.probe(),"
            " self._engine.now())\n"
        ),
        new="                    pass\n",
        tests=("tests/unit/connection/test_idle_watch.py", "tests/faults/test_idle.py"),
    ),
    Mutation(
        name="a check in the background makes a connection younger",
        file="_pool/reap.py",
        old="self._core.given_back(entry, now, unused=True)",
        new="self._core.given_back(entry, now)",
        tests=("tests/unit/pool/test_reap.py",),
    ),
    # ── the end ─────────────────────────────────────────────────────────────────
    Mutation(
        name="a block that failed still gives leases their grace",
        file="_pool/lifecycle.py",
        old="self._close(0.0 if exc is not None else self._grace)",
        new="self._close(self._grace)",
        tests=(_CLOSING,),
    ),
    Mutation(
        name="the closing task waits for its own leases",
        file="_pool/lifecycle.py",
        old="            self._interrupt(current_task())\n            if grace",
        new="            if grace",
        tests=(_CLOSING,),
    ),
    Mutation(
        name="leases outlive their pool's grace",
        file="_pool/lifecycle.py",
        old="            self._interrupt(None)\n",
        new="            pass\n",
        tests=(_GRACE,),
    ),
    # ── what only simulated time shows ──────────────────────────────────────────
    Mutation(
        name="the end of a stream is not noted",
        file="_connection/exchange.py",
        old="            self.taints |= ENDED\n",
        new="            pass\n",
        tests=("tests/unit/connection/test_exchange.py", "tests/unit/connection/test_hand_over.py"),
    ),
    Mutation(
        name="a block does not tell what it ended in",
        file="_lending/block.py",
        old="self._lender.give_back(lease, exc)",
        new="self._lender.give_back(lease, None)",
        tests=("tests/unit/connection/test_hand_over.py",),
    ),
    Mutation(
        name="a handle that was kept still works",
        file="_lending/lease.py",
        old="    lease._wire = CLOSED_STREAM  # noqa: SLF001\n",
        new="",
        tests=("tests/unit/lending/test_lease.py",),
    ),
    Mutation(
        name="a dropped lease of a closed connection never ends",
        file="_lending/acquire.py",
        old="        assert self._token is not None  # there was a lease",
        new="        if entry.state is not _ACTIVE:\n            return\n"
        "        assert self._token is not None  # there was a lease",
        tests=("tests/unit/lending/test_lease.py",),
    ),
    Mutation(
        name="a connection that was taken and not lent is young again",
        file="_lending/acquire.py",
        old="            self._core.given_back(entry, now, unused=True)\n",
        new="            self._core.given_back(entry, now)\n",
        tests=("tests/unit/lending/test_acquire.py",),
    ),
    Mutation(
        name="who has no time at all is dialled for",
        file="_lending/acquire.py",
        old="        if waiter.deadline <= now:\n",
        new="        if waiter.deadline < now:\n",
        tests=("tests/unit/lending/test_acquire.py",),
    ),
    Mutation(
        name="who lost a connection to a clear queues anew",
        file="_lending/acquire.py",
        old="await self._wait(waiter, sub, now, had_turn)",
        new="await self._wait(waiter, sub, now)",
        tests=("tests/unit/lending/test_acquire.py",),
    ),
    Mutation(
        name="a lease begins a rounding error late",
        file="_lending/acquire.py",
        old="self._begin(entry, now, now - started)",
        new="self._begin(entry, started + (now - started), now - started)",
        tests=("tests/unit/lending/test_acquire.py",),
    ),
    Mutation(
        name="a check is begun without any time for it",
        file="_lending/acquire.py",
        old="        if deadline <= now:  # a check",
        new="        if deadline < now:  # a check",
        tests=("tests/unit/lending/test_peer_check.py",),
    ),
    Mutation(
        name="what a hook must not raise means no",
        file="_lending/peer_check.py",
        old="        except Exception:  # noqa: BLE001",
        new="        except BaseException:  # noqa: BLE001",
        tests=("tests/unit/lending/test_peer_check.py",),
    ),
    Mutation(
        name="a pool is of use in every thread",
        file="_lending/acquire.py",
        old="        if sub is None or self._thread != get_ident():\n",
        new="        if sub is None:\n",
        tests=("tests/unit/pool/test_lifecycle.py",),
    ),
    Mutation(
        name="a clear overlooks what was handed over and not lent yet",
        file="_core/core.py",
        old="            if entry.state is _ACTIVE and not entry.leases:\n",
        new="            if False:\n",
        tests=("tests/unit/lending/test_acquire.py", "tests/unit/lending/test_peer_check.py"),
    ),
    Mutation(
        name="a checked connection goes to the top of the stack",
        file="_core/core.py",
        old="elif unused:\n                self._ledger.push_idle_back(entry)",
        new="elif unused:\n                self._ledger.push_idle(entry)",
        tests=("tests/unit/pool/test_reap.py",),
    ),
    Mutation(
        name="the counters of a forgotten endpoint are forgotten",
        file="_core/core.py",
        old="            self.dropped_counters.absorb(sub.counters)\n",
        new="",
        tests=("tests/unit/pool/test_reap.py",),
    ),
    Mutation(
        name="a background check is made in every sweep",
        file="_pool/reap.py",
        old="max(entry.idle_since, entry.checked_at)",
        new="entry.idle_since",
        tests=("tests/unit/pool/test_reap.py",),
    ),
    Mutation(
        name="a deadlock is looked for when the first has let go",
        file="_engine/engine.py",
        old="            self._note_deadlocks()\n",
        new="",
        tests=("tests/unit/engine/test_holders.py",),
    ),
    Mutation(
        name="who waits for a dial is told of a deadlock",
        file="_engine/holders.py",
        old=(
            "    if sub.limit.has_free_slot and (pool_limit is None"
            " or pool_limit.limit.has_free_slot):\n"
        ),
        new="    if False:\n",
        tests=("tests/unit/engine/test_holders.py",),
    ),
    Mutation(
        name="sweep closes what was taken meanwhile",
        file="_pool/reap.py",
        old=(
            "                if entry.state is ConnectionState.IDLE:\n"
            "                    self._inspect("
        ),
        new="                if entry:\n                    self._inspect(",
        tests=("tests/unit/pool/test_reap.py",),
    ),
    Mutation(
        name="a forgotten endpoint is warmed when its name is known again",
        file="_pool/follow.py",
        old="        if addresses is not None and _may_have_moved(sub):\n",
        new="        if addresses is not None:\n",
        tests=("tests/unit/pool/test_follow.py",),
    ),
    Mutation(
        name="a line that was cut looks like an end",
        file="_connection/tls_tap.py",
        old="            context.options = usual & ~HIDES_TRUNCATION\n",
        new="            pass\n",
        tests=("tests/unit/connection/test_tls_tap.py",),
    ),
    Mutation(
        name="a context of the user's is changed for good",
        file="_connection/tls_tap.py",
        old="                context.options = usual\n",
        new="                pass\n",
        tests=("tests/unit/connection/test_tls_tap.py",),
    ),
    Mutation(
        name="news overtakes news",
        file="_engine/engine.py",
        old="        if self._is_telling:\n            return\n",
        new="",
        tests=("tests/unit/engine/test_engine.py",),
    ),
    Mutation(
        name="a dial runs in the context of who caused it",
        file="_engine/engine.py",
        old=(
            "self._context.run(lambda: self._dial_nursery.start_soon(self._dial, entry, name=name))"
        ),
        new="self._dial_nursery.start_soon(self._dial, entry, name=name)",
        tests=("tests/unit/engine/test_engine.py",),
    ),
    Mutation(
        name="a cancellation takes the place of what the block raised",
        file="_pool/lifecycle.py",
        old="            if grace:  # else",
        new="            if grace >= 0:  # else",
        tests=("tests/unit/pool/test_lifecycle.py",),
    ),
    Mutation(
        name="a forked child lends its parent's connections",
        file="_pool/lifecycle.py",
        old="        _open_pools.add(self)\n",
        new="",
        tests=("tests/unit/pool/test_fork.py",),
    ),
)

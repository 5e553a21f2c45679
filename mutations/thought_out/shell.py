"""Bugs in the shell: what lends, looks, judges, wakes, dials, closes, sweeps and ends."""

from __future__ import annotations

from mutations.bug import Mutation

_CLOSING = "tests/faults/test_closing_faults.py"
_GRACE = _CLOSING + "::test_g17_a_peer_that_hangs_costs_the_grace_and_no_more"
_BROKEN_OFF = "tests/regressions/test_broken_off.py"
_ERROR_EACH = (
    "tests/unit/lending/test_acquire.py"
    "::test_f144_callers_who_are_told_of_one_dial_get_an_error_each"
)
_UNDONE = "tests/unit/engine/test_undone.py"
_DIAGNOSIS = "tests/unit/engine/test_diagnosis.py"

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
        old=("            self.taints |= OWED\n        except trio.BrokenResourceError:\n"),
        new="        except trio.BrokenResourceError:\n",
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
        old="taints &= JUDGED | SHARED\n",
        new="taints &= JUDGED | SHARED | VOUCHED\n",
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
        old=(
            "    except OSError:  # also if somebody else has closed the descriptor\n"
            "        return CloseReason.PEER_CLOSED\n"
        ),
        new=(
            "    except OSError:  # also if somebody else has closed the descriptor\n"
            "        return None\n"
        ),
        tests=("tests/unit/connection/test_probe.py",),
    ),
    # ── lending ─────────────────────────────────────────────────────────────────
    Mutation(
        name="who found a dead connection queues anew",
        file="_core/ledger.py",
        old="            self._set_coming(awaited_by, None)\n",
        new=(
            "            self.arrivals += 1\n"
            "            awaited_by.number = self.arrivals\n"
            "            self._set_coming(awaited_by, None)\n"
        ),
        tests=("tests/unit/lending/test_peer_check.py",),
    ),
    Mutation(
        name="dead connections are tried one after the other",
        file="_core/checks.py",
        old="            if sub.silent > 1:\n",
        new="            if False:\n",
        tests=("tests/unit/lending/test_peer_check.py", "tests/regressions/test_slow_checks.py"),
    ),
    Mutation(
        name="what a health hook ends counts as a lease",
        file="_lending/release.py",
        old="            if held is CLOSED_STREAM or lease not in entry.leases:\n",
        new="            if held is CLOSED_STREAM:\n",
        tests=("tests/unit/lending/test_peer_check.py", "tests/regressions/test_own_bugs.py"),
    ),
    # ── waiting ─────────────────────────────────────────────────────────────────
    Mutation(
        name="who warmed and was cancelled still waits",
        file="_core/orders.py",
        old=("        if warmer.queued:\n            self._ledger.leave_warming(warmer)\n"),
        new="        pass\n",
        tests=("tests/unit/lending/test_waiting.py",),
    ),
    # ── the engine ──────────────────────────────────────────────────────────────
    Mutation(
        name="an idle connection is handed to a waiter unseen",
        file="_engine/engine.py",
        old="        reason = entry.link.probe()\n",
        new="        reason = None\n",
        tests=("tests/regressions/test_handed_over.py",),
    ),
    Mutation(
        name="the timer is set a second late for an earlier moment",
        file="_engine/engine.py",
        old="ring_at(self._timetable.next_at)",
        new="ring_at(self._timetable.next_at + 1)",
        tests=("tests/unit/lending/test_waiting.py",),
    ),
    Mutation(
        name="all connections are closed by force",
        file="_engine/engine.py",
        old="        needs_await = self.attendant.needs_await(entry, gracefully)\n",
        new="        needs_await = False\n",
        tests=("tests/regressions/test_slots.py::test_sqlalchemy_8145_when_all_is_cancelled",),
    ),
    # ── maintenance ─────────────────────────────────────────────────────────────
    Mutation(
        name="a long sweep lets nobody run",
        file="_pool/reap.py",
        old=(
            "                    left = _BATCH\n"
            "                    await trio.lowlevel.checkpoint()\n"
        ),
        new="                    left = _BATCH\n",
        tests=("tests/unit/pool/test_reap.py",),
    ),
    Mutation(
        name="nothing that is idle is seen to end",
        file="_pool/reap.py",
        old="            reason = entry.link.probe()\n",
        new="            reason = None\n",
        tests=("tests/unit/connection/test_idle_watch.py", "tests/faults/test_idle.py"),
    ),
    Mutation(
        name="a check in the background makes a connection younger",
        file="_core/ledger.py",
        old="min(entry.idle_since + sub.max_idle_time, entry.expires_at)",
        new="min(entry.checked_at + sub.max_idle_time, entry.expires_at)",
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
        old=("            await self._interrupt(current_task())\n            if grace:\n"),
        new="            if grace:\n",
        tests=("tests/unit/pool/test_lifecycle.py", _CLOSING),
    ),
    Mutation(
        name="leases outlive their pool's grace",
        file="_pool/lifecycle.py",
        old="await self._interrupt(None)",
        new="pass",
        tests=(_GRACE,),
    ),
    Mutation(
        name="the background ends with the block that is cancelled",
        file="_engine/background.py",
        old=" with trio.CancelScope(shield=True) as scope:\n",
        new=" with trio.CancelScope() as scope:\n",
        tests=("tests/unit/pool/test_lifecycle.py",),
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
        old="give_back(connection, exc)",
        new="give_back(connection, None)",
        tests=("tests/unit/connection/test_hand_over.py",),
    ),
    Mutation(
        name="a handle that was kept still works",
        file="_lending/release.py",
        old="        connection._exchange = CLOSED_STREAM  # noqa: SLF001\n",
        new="",
        tests=("tests/unit/lending/test_lease.py",),
    ),
    Mutation(
        name="a dropped lease of a closed connection never ends",
        file="_lending/release.py",
        old=(
            "        self.unended[lease] = _DISCARDED\n"
            "        self._call_soon()\n"
            "        if entry.state is not _ACTIVE:\n"
        ),
        new=(
            "        if entry.state is _ACTIVE:\n"
            "            self.unended[lease] = _DISCARDED\n"
            "        self._call_soon()\n"
            "        if entry.state is not _ACTIVE:\n"
        ),
        tests=("tests/unit/lending/test_lease.py",),
    ),
    Mutation(
        name="a connection that was taken and not lent is young again",
        file="_core/core.py",
        old=("            return  # others share it\n        if reason is not None:\n"),
        new=(
            "            return  # others share it\n"
            "        keeping.begin_idling(entry, now)\n"
            "        if reason is not None:\n"
        ),
        tests=("tests/regressions/test_making_way.py", "tests/unit/lending/test_acquire.py"),
    ),
    Mutation(
        name="who lost a connection to a clear queues anew",
        file="_lending/acquire.py",
        old=("        waiter.entry = None\n        waiter.had_turn = True\n"),
        new="        waiter.entry = None\n",
        tests=("tests/unit/lending/test_acquire.py",),
    ),
    Mutation(
        name="a lease begins a rounding error late",
        file="_lending/acquire.py",
        old="self._core.lease_began(entry, current_task(), now - since, now)\n",
        new=("self._core.lease_began(entry, current_task(), now - since, since + (now - since))\n"),
        tests=("tests/unit/lending/test_acquire.py",),
    ),
    Mutation(
        name="a check takes as long as it takes",
        file="_lending/peer_check.py",
        old="        with trio.move_on_after(timeout) as scope:\n",
        new="        with trio.move_on_after(timeout + 3600) as scope:\n",
        tests=("tests/unit/lending/test_peer_check.py",),
    ),
    Mutation(
        name="what a hook must not raise means no",
        file="_lending/peer_check.py",
        old="        except Exception as error:  # noqa: BLE001",
        new="        except BaseException as error:  # noqa: BLE001",
        tests=("tests/unit/lending/test_peer_check.py",),
    ),
    Mutation(
        name="a pool is of use in every thread",
        file="_lending/acquire.py",
        old="(entry is None and self._engine.lends_in != get_ident())",
        new="False",
        tests=("tests/unit/pool/test_threads.py", "tests/unit/pool/test_lifecycle.py"),
    ),
    Mutation(
        name="a clear overlooks what was handed over and not lent yet",
        file="_lending/acquire.py",
        old="                and entry.generation == entry.sub.generation\n",
        new="",
        tests=("tests/unit/lending/test_acquire.py", "tests/unit/lending/test_peer_check.py"),
    ),
    Mutation(
        name="a checked connection goes to the top of the stack",
        file="_core/ledger.py",
        old="        sub.reserved = without(sub.reserved, entry)\n        entry.lapses_at",
        new=(
            "        sub.reserved = without(sub.reserved, entry)\n"
            "        sub.idle[entry] = sub.idle.pop(entry)\n        entry.lapses_at"
        ),
        tests=("tests/unit/pool/test_reap.py",),
    ),
    Mutation(
        name="the counters of a forgotten endpoint are forgotten",
        file="_core/core.py",
        old="        self.memory.keep(sub.endpoint, sub.counters)\n",
        new="",
        tests=("tests/unit/pool/test_reap.py",),
    ),
    Mutation(
        name="a background check is made in every sweep",
        file="_lending/peer_check.py",
        old="now - silent_since(entry) >= interval",
        new="now - entry.idle_since >= interval",
        tests=("tests/unit/pool/test_reap.py",),
    ),
    Mutation(
        name="a deadlock is looked for when the first has let go",
        file="_engine/engine.py",
        old="        self._mark_deadlocks()\n",
        new="",
        tests=("tests/unit/engine/test_holders.py",),
    ),
    Mutation(
        name="a slot that will come free is taken for part of a deadlock",
        file="_engine/holders.py",
        old=("                if not waiters:\n                    return False\n"),
        new=("                if not waiters:\n                    continue\n"),
        tests=("tests/unit/engine/test_holders.py", "tests/unit/engine/test_slots.py"),
    ),
    Mutation(
        name="what is lent is looked at as if it were idle",
        file="_pool/reap.py",
        old="        if entry.state is not _IDLE or entry in entry.sub.reserved:\n",
        new="        if entry in entry.sub.reserved:\n",
        tests=("tests/unit/connection/test_idle_watch.py", "tests/unit/pool/test_reap.py"),
    ),
    Mutation(
        name="a name that leads nowhere for a moment has its connections closed",
        file="_pool/follow.py",
        old="        if addresses and _may_have_moved(sub):\n",
        new="        if addresses is not None and _may_have_moved(sub):\n",
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
        file="_engine/news.py",
        old=("        if self.is_held:\n            return\n"),
        new="",
        tests=("tests/regressions/test_own_bugs.py", "tests/unit/engine/test_engine.py"),
    ),
    Mutation(
        name="a dial runs in the context of who caused it",
        file="_engine/background.py",
        old="        self._context.run(lambda: self._nursery",
        new="        (lambda call: call())(lambda: self._nursery",
        tests=("tests/unit/engine/test_engine.py",),
    ),
    Mutation(
        name="a cancellation takes the place of what the block raised",
        file="_pool/lifecycle.py",
        old="            if grace:\n",
        new="            if grace >= 0:\n",
        tests=("tests/unit/pool/test_lifecycle.py",),
    ),
    Mutation(
        name="a forked child lends its parent's connections",
        file="_pool/lifecycle.py",
        old="        _open_pools.add(self)\n",
        new="",
        tests=("tests/unit/pool/test_fork.py",),
    ),
    # ── what breaks off, and what nobody is to blame for ────────────────────────
    Mutation(
        name="a check lasts no longer than its first caller waits",
        file="_lending/peer_check.py",
        old="                timeout = entry.sub.config.health_check_timeout\n",
        new=(
            '                end = getattr(entry.awaited_by, "deadline", float("inf"))\n'
            "                timeout = entry.sub.config.health_check_timeout\n"
            "                timeout = min(end - engine.now(), timeout)\n"
        ),
        tests=("tests/unit/lending/test_peer_check.py", "tests/regressions/test_slow_checks.py"),
    ),
    Mutation(
        name="a check that is broken off has succeeded",
        file="_lending/peer_check.py",
        old="reason: CloseReason | None = CloseReason.POOL_CLOSED",
        new="reason: CloseReason | None = None",
        tests=("tests/unit/lending/test_peer_check.py", "tests/unit/pool/test_reap.py"),
    ),
    Mutation(
        name="an effect that raises is dropped",
        file="_engine/engine.py",
        old=("        self._undone.append(effect)\n        with suppress"),
        new="        with suppress",
        tests=(_UNDONE,),
    ),
    Mutation(
        name="an effect that raises keeps the others from being done",
        file="_engine/engine.py",
        old=(
            "                if not isinstance(error, Exception):\n"
            "                    self.perform(now)\n"
            "                    raise\n"
        ),
        new="                raise\n",
        tests=(_UNDONE,),
    ),
    Mutation(
        name="what only the user may stop keeps the other effects from being done",
        file="_engine/engine.py",
        old=("                    self.perform(now)\n                    raise\n"),
        new="                    raise\n",
        tests=(_UNDONE,),
    ),
    Mutation(
        name="what fails for good is tried for ever",
        file="_engine/engine.py",
        old="                self._do_without(effect, error)\n",
        new="                self._undone.append(effect)\n",
        tests=(_UNDONE,),
    ),
    Mutation(
        name="a connection that the system will not watch is not opened",
        file="_connection/idle_watch.py",
        old="        except OSError:  # the system",
        new="        except FileNotFoundError:  # the system",
        tests=("tests/unit/connection/test_idle_watch.py",),
    ),
    Mutation(
        name="the watch goes on with connections that are closed",
        file="_engine/engine.py",
        old="        self.watch.remove(entry)\n",
        new="",
        tests=("tests/unit/connection/test_idle_watch.py",),
    ),
    Mutation(
        name="the watch remembers connections that are closed",
        file="_connection/idle_watch.py",
        old="self._descriptors.pop(entry, -1)",
        new="self._descriptors.get(entry, -1)",
        tests=("tests/faults/test_idle.py",),
    ),
    Mutation(
        name="a dial that was given up is an error of its endpoint",
        file="_engine/dialler.py",
        old="failures.dial_failed(entry, error, now, is_servers",
        new="failures.dial_failed(entry, told, now, is_servers",
        tests=("tests/regressions/test_making_way.py",),
    ),
    Mutation(
        name="nobody hears of a connection that was lost at once",
        file="_lending/release.py",
        old="                self._core.failures.lost_early(entry, _lost_early(entry), now)\n",
        new="                pass\n",
        tests=("tests/regressions/test_outages.py",),
    ),
    Mutation(
        name="what a peer sent before it hung up is overlooked",
        file="_connection/exchange.py",
        old="            self.has_received = True\n",
        new="            pass\n",
        tests=("tests/regressions/test_outages.py",),
    ),
    Mutation(
        name="the callers of one dial share its error",
        file="_lending/refusal.py",
        old='return copy_for_caller(cast("ConnectError", waiter.error))',
        new='return cast("ConnectError", waiter.error)',
        tests=(_ERROR_EACH,),
    ),
    Mutation(
        name="the tasks that warm share the error of a dial",
        file="_pool/steering.py",
        old='raise copy_for_caller(cast("ConnectError", warmer.error))',
        new='raise cast("ConnectError", warmer.error)',
        tests=("tests/unit/pool/test_pool.py",),
    ),
    Mutation(
        name="what is remembered of a failure keeps the frames of its dial",
        file="_engine/dialler.py",
        old="            failures.remember(entry.sub, error, without_traceback(error))\n",
        new="            pass\n",
        tests=(_ERROR_EACH,),
    ),
    Mutation(
        name="a lease whose end breaks off is forgotten",
        file="_lending/release.py",
        old=("            self.unended[lease] = _ERROR  # no call: there may be no room for one\n"),
        new="            pass\n",
        tests=(_BROKEN_OFF,),
    ),
    # ── diagnosis, the log, and answers to guesses ──────────────────────────────
    Mutation(
        name="a deadlock is told at each wait",
        file="_engine/diagnosis.py",
        old="            self._told.add(target)\n",
        new="            pass\n",
        tests=(_DIAGNOSIS,),
    ),
    Mutation(
        name="one full member of a group is a deadlock",
        file="_engine/diagnosis.py",
        old="        if all(one.is_deadlock for one in slots):\n",
        new="        if any(one.is_deadlock for one in slots):\n",
        tests=(_DIAGNOSIS,),
    ),
    Mutation(
        name="nobody looks for deadlocks",
        file="_lending/waiting.py",
        old="    engine.deadlocks.look(waiter)\n",
        new="    engine.deadlocks  # look\n",
        tests=(_DIAGNOSIS,),
    ),
    Mutation(
        name="a long search for a deadlock costs those who follow nothing less",
        file="_engine/diagnosis.py",
        old="        self._unasked = tick.looked_at // _PER_TASK\n",
        new="        self._unasked = tick.looked_at // 10_000\n",
        tests=(_DIAGNOSIS,),
    ),
    Mutation(
        name="each pool beyond a handful is told",
        file="_engine/diagnosis.py",
        old="    if sites[site] == HANDFUL + 1:\n",
        new="    if sites[site] >= HANDFUL + 1:\n",
        tests=(_DIAGNOSIS,),
    ),
    Mutation(
        name="leases that end within the grace are told as cut off",
        file="_pool/lifecycle.py",
        old="                if scope.cancelled_caught:\n",
        new="                if not scope.cancelled_caught:\n",
        tests=(_DIAGNOSIS,),
    ),
    Mutation(
        name="each failed dial of an outage is a warning",
        file="_engine/dialler.py",
        old="            tell = log.warning if is_first else log.note\n",
        new="            tell = log.warning\n",
        tests=(_DIAGNOSIS,),
    ),
    Mutation(
        name="what a peer does is a warning",
        file="_errors/pool_log.py",
        old="        level = logging.INFO if _is_of_peers(error) else logging.WARNING\n",
        new="        level = logging.WARNING\n",
        tests=("tests/unit/errors/test_pool_log.py",),
    ),
    Mutation(
        name="a record names no endpoint",
        file="_errors/pool_log.py",
        old="        return PoolLog(self.pool, endpoint)\n",
        new="        return PoolLog(self.pool)\n",
        tests=("tests/unit/errors/test_pool_log.py",),
    ),
    Mutation(
        name="a guess is an attribute",
        file="_values/guesses.py",
        old="        raise AttributeError(self._message, name=self._name, obj=instance)\n",
        new="        raise TypeError(self._message)\n",
        tests=("tests/unit/values/test_guesses.py",),
    ),
    Mutation(
        name="an unknown option is dropped",
        file="_values/guesses.py",
        old="                    raise TypeError(explain(name, known))\n",
        new="                    options = {}\n",
        tests=("tests/unit/values/test_guesses.py",),
    ),
    Mutation(
        name="a lease that the pool closed says that it was given back",
        file="_connection/exchange.py",
        old="            self.stream = DeadStream(partial(_cut, why))\n",
        new="            self.stream = CLOSED_STREAM\n",
        tests=("tests/unit/connection/test_exchange.py",),
    ),
    Mutation(
        name="a refused connection is like any other",
        file="_errors/explain.py",
        old='    if code == codes.ECONNREFUSED and phase == "tcp":\n',
        new="    if not phase:\n",
        tests=("tests/unit/errors/test_explain.py",),
    ),
)

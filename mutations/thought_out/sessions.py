"""Bugs in what is done for sessions: open, check, reset, share, run beside, and say goodbye."""

from __future__ import annotations

from mutations.bug import Mutation

_DRIVER = "tests/unit/pool/test_driver.py"
_SHARING = "tests/unit/pool/test_sharing.py"
_PROBE = "tests/unit/connection/test_probe.py"
_DIAL = "tests/unit/dial/test_dial.py"
_LINK = "tests/unit/connection/test_link.py"

MUTATIONS = (
    # ── open ───────────────────────────────────────────────────────────────────────
    Mutation(
        name="an open() that fails leaves its socket open",
        file="_dial/dial.py",
        old="        # By force: a polite",
        new=("        if rules.opens:\n            raise\n        # By force: a polite"),
        tests=(_DRIVER,),
    ),
    Mutation(
        name="a session that cannot be probed keeps its socket",
        file="_dial/dial.py",
        old=("        try_close_now(NativeStream(driver, session), log)\n        raise\n"),
        new="        raise\n",
        tests=(_DIAL,),
    ),
    Mutation(
        name="an open() that has left a connection in ruins has succeeded",
        file="_connection/link.py",
        old="if exchange.in_progress or exchange.taints & (CUT_SEND | HALF_CLOSED | ENDED):",
        new="if False:",
        tests=(_DRIVER,),
    ),
    Mutation(
        name="what open() sent is owed an answer at the first release",
        file="_connection/link.py",
        old="        exchange.taints &= JUDGED | SHARED\n",
        new="",
        tests=(_DRIVER,),
    ),
    # ── probe ──────────────────────────────────────────────────────────────────────
    Mutation(
        name="the probe takes the bytes of a session with its own socket",
        file="_connection/probe.py",
        old="stdlib_socket.MSG_PEEK | _DO_NOT_WAIT",
        new="_DO_NOT_WAIT",
        tests=(_PROBE,),
    ),
    Mutation(
        name="the probe looks at a descriptor that somebody else has now",
        file="_connection/probe.py",
        old="            return self._fileno() != self._descriptor\n",
        new="            return False\n",
        tests=(_PROBE,),
    ),
    Mutation(
        name="encrypted bytes of a driver's own TLS count as an answer",
        file="_connection/probe.py",
        old="        if data and self._is_opaque:\n",
        new="        if False:\n",
        tests=(_PROBE,),
    ),
    Mutation(
        name="what a companion has still to read is unread data",
        file="_connection/link.py",
        old="        if self.has_companion:  # it reads",
        new="        if False:  # it reads",
        tests=(_LINK,),
    ),
    # ── is_clean ───────────────────────────────────────────────────────────────────
    Mutation(
        name="a driver excuses an interrupted send",
        file="_connection/hand_over.py",
        old=(
            "    if exchange.in_progress > link.has_companion or taints & CUT_SEND:\n"
            "        return True\n"
            "    if taints & JUDGED:\n"
        ),
        new=(
            "    if exchange.in_progress > link.has_companion:\n"
            "        return True\n"
            "    if taints & CUT_SEND and not taints & JUDGED:\n"
            "        return True\n"
            "    if taints & JUDGED:\n"
        ),
        tests=(_DRIVER,),
    ),
    Mutation(
        name="an exception costs the connection whatever its driver says",
        file="_connection/hand_over.py",
        old=("        is_cut = is_cut_short(link)\n        if is_cut and exc is None:\n"),
        new=(
            "        is_cut = is_cut_short(link) or exc is not None\n"
            "        if is_cut and exc is None:\n"
        ),
        tests=(_DRIVER,),
    ),
    Mutation(
        name="an is_clean() that raises has said yes",
        file="_connection/session.py",
        old="error=error)\n            return False\n",
        new="error=error)\n            return True\n",
        tests=(_DRIVER,),
    ),
    # ── check and reset ────────────────────────────────────────────────────────────
    Mutation(
        name="a session is lent without its check",
        file="_lending/peer_check.py",
        old="                if rules.checks:\n",
        new="                if False:\n",
        tests=(_DRIVER,),
    ),
    Mutation(
        name="a session is lent without its reset",
        file="_core/serving.py",
        old="        elif is_used and sub.resets:\n",
        new="        elif False:\n",
        tests=(_DRIVER,),
    ),
    Mutation(
        name="a reset takes as long as it takes",
        file="_engine/attendant.py",
        old="trio.move_on_after(timeout)",
        new="trio.move_on_after(timeout + 3600)",
        tests=(_DRIVER,),
    ),
    Mutation(
        name="a reset that was cut off has come to its end",
        file="_engine/attendant.py",
        old="        reason: CloseReason | None = CloseReason.UNHEALTHY  #",
        new="        reason: CloseReason | None = None  #",
        tests=(_DRIVER,),
    ),
    Mutation(
        name="what a reset has left behind is not judged",
        file="_engine/attendant.py",
        old="reason = end_exchange(entry.link, None)",
        new="reason = None",
        tests=(_DRIVER,),
    ),
    Mutation(
        name="what is about to be closed is reset before",
        file="_core/serving.py",
        old=(
            "        if reason is not None:\n"
            "            self._ledger.condemn(entry, reason, gracefully=reason not in _UNCLEAN)\n"
            "        elif is_used and sub.resets:\n"
            "            self._ledger.begin_reset(entry)\n"
        ),
        new=(
            "        if is_used and sub.resets:\n"
            "            self._ledger.begin_reset(entry)\n"
            "        elif reason is not None:\n"
            "            self._ledger.condemn(entry, reason, gracefully=reason not in _UNCLEAN)\n"
        ),
        tests=(_DRIVER,),
    ),
    # ── close and cancel ───────────────────────────────────────────────────────────
    Mutation(
        name="a goodbye takes as long as it takes",
        file="_connection/closing.py",
        old="(shield=True, deadline=trio.current_time() + timeout) as scope:\n",
        new="(shield=True, deadline=trio.current_time() + 3600) as scope:\n",
        tests=(_DRIVER,),
    ),
    Mutation(
        name="a cancel() takes as long as it takes",
        file="_connection/closing.py",
        old=("trio.current_time() + timeout):\n                await _say(stop, stream, log)\n"),
        new=("trio.current_time() + 3600):\n                await _say(stop, stream, log)\n"),
        tests=(_DRIVER,),
    ),
    Mutation(
        name="a cancel() that fails as its time is up is a failure of the pool's",
        file="_connection/closing.py",
        old="    except Exception as error:  # noqa: BLE001 - what `stop`",
        new="    except ArithmeticError as error:  #",
        tests=(_DRIVER,),
    ),
    Mutation(
        name="a companion that fails as it is cancelled fails the pool's block",
        file="_engine/background.py",
        old="                raise rest from None\n",
        new="                raise\n",
        tests=(_DRIVER,),
    ),
    Mutation(
        name="a companion that is cancelled within a nursery is told as a failure",
        file="_engine/background.py",
        old="            if errors is not None:\n",
        new="            if group is not None:\n",
        tests=(_DRIVER,),
    ),
    Mutation(
        name="a session leaves without a goodbye",
        file="_connection/link.py",
        old="return self.rules.says_goodbye or ",
        new="return ",
        tests=(_DRIVER,),
    ),
    Mutation(
        name="nobody tells the peer of a session that was cut short to stop",
        file="_engine/attendant.py",
        old=(
            "        return self._rules.cancels and bool(entry.uses) and is_cut_short(entry.link)\n"
        ),
        new="        return False\n",
        tests=(_DRIVER,),
    ),
    Mutation(
        name="the peer of a session that owes nothing is told to stop",
        file="_engine/attendant.py",
        old="_ACTIVE = ConnectionState.ACTIVE\n",
        new=("_ACTIVE = ConnectionState.ACTIVE\n\n\ndef is_cut_short(_):\n    return True\n"),
        tests=(_DRIVER,),
    ),
    # ── run ────────────────────────────────────────────────────────────────────────
    Mutation(
        name="a companion outlives its connection",
        file="_engine/attendant.py",
        old="            scope.cancel()\n",
        new="            pass\n",
        tests=(_DRIVER,),
    ),
    Mutation(
        name="a connection outlives its companion",
        file="_engine/dialler.py",
        old="            self._host.report(self._host.core.condemned, entry, reason)\n",
        new="            pass\n",
        tests=(_DRIVER,),
    ),
    Mutation(
        name="a lease does not learn that the companion has ended",
        file="_engine/attendant.py",
        old="                entry.link.exchange.break_off()\n",
        new="",
        tests=(_DRIVER, _SHARING),
    ),
    Mutation(
        name="a goodbye is said while the companion still reads",
        file="_engine/attendant.py",
        old="        await self._wait_until_alone(entry)  #",
        new="        pass  #",
        tests=(_DRIVER,),
    ),
    Mutation(
        name="the peer is told to stop while the companion still reads",
        file="_engine/attendant.py",
        old=("        await self._wait_until_alone(entry)\n        await self._driver.cancel"),
        new="        await self._driver.cancel",
        tests=(_DRIVER,),
    ),
    Mutation(
        name="a companion that raises takes the pool with it",
        file="_engine/attendant.py",
        old=("run(entry.link.session)\n        except Exception as error:"),
        new=("run(entry.link.session)\n        except KeyError as error:"),
        tests=(_DRIVER,),
    ),
    # ── sharing ────────────────────────────────────────────────────────────────────
    Mutation(
        name="an exception in one lease closes the connection under the others",
        file="_core/core.py",
        old=(
            "            if sub.shares:\n"
            "                self._leave(entry, reason, now)\n"
            "            else:\n"
            "                self.condemned(entry, reason, now)\n"
        ),
        new="            self.condemned(entry, reason, now)\n",
        tests=(_SHARING,),
    ),
    Mutation(
        name="an exception in one lease spoils the connection for the next",
        file="_lending/share.py",
        old="        if entry.capacity <= 1 and entry.holders <= 1:\n",
        new="        if True:\n",
        tests=(_SHARING,),
    ),
    Mutation(
        name="an interrupted send is the concern of its own lease only",
        file="_lending/share.py",
        old=(
            "        if link.exchange.taints & CUT_SEND:\n"
            "            return CloseReason.INCOMPLETE\n"
        ),
        new="",
        tests=(_SHARING,),
    ),
    Mutation(
        name="a connection takes as many leases as when it was opened",
        file="_lending/share.py",
        old="            if entry.holders < self.note_capacity(entry, now):\n",
        new="            if entry.holders < entry.capacity:\n",
        tests=(_SHARING,),
    ),
    Mutation(
        name="a connection is not asked for its capacity when a lease ends",
        file="_lending/share.py",
        old=("        self.note_capacity(entry, self._engine.now())\n        if entry"),
        new="        if entry",
        tests=(_SHARING,),
    ),
    Mutation(
        name="a connection that has more room now is not found",
        file="_lending/share.py",
        old=("        if not sub.roomy:\n            self.ask_all(sub, now, _MOST_ASKED)\n"),
        new="",
        tests=(_SHARING,),
    ),
    Mutation(
        name="a waiter joins a connection whose room is gone",
        file="_lending/share.py",
        old="return has_room and is_current",
        new="return is_current",
        tests=(_SHARING,),
    ),
    Mutation(
        name="the sweep asks no connection for its capacity",
        file="_pool/reap.py",
        old="            if sub.shares:\n",
        new="            if False:\n",
        tests=(_SHARING,),
    ),
    Mutation(
        name="the emptiest connection is preferred",
        file="_core/sharing.py",
        old="max(sub.roomy, key=_fill_of)",
        new="min(sub.roomy, key=_fill_of)",
        tests=(_SHARING,),
    ),
    Mutation(
        name="a shared connection takes leases when it is too old",
        file="_core/sharing.py",
        old="            if now < entry.expires_at and ",
        new="            if ",
        tests=(_SHARING,),
    ),
    Mutation(
        name="leases that are about to begin are no uses of a shared connection",
        file="_core/sharing.py",
        old="entry.uses + about_to_begin < sub.max_uses",
        new="entry.uses < sub.max_uses",
        tests=(_SHARING,),
    ),
    Mutation(
        name="those who share a connection may use its stream",
        file="_lending/share.py",
        old="            link.offered = REFUSING  #",
        new="            pass  #",
        tests=(_SHARING,),
    ),
    Mutation(
        name="one of those who share a connection may take it along",
        file="_lending/release.py",
        old="        if lease.entry.link.offered is REFUSING:\n",
        new="        if False:\n",
        tests=(_SHARING,),
    ),
    # ── what a lease offers ────────────────────────────────────────────────────────
    Mutation(
        name="a session that was kept still works",
        file="_lending/lease.py",
        old="        link = self._held().entry.link\n",
        new="        link = self._lease.entry.link\n",
        tests=(_DRIVER,),
    ),
    Mutation(
        name="no connection remembers whom it has served",
        file="_lending/acquire.py",
        old="            remember(entry, affinity)\n",
        new="            pass\n",
        tests=(_DRIVER,),
    ),
    Mutation(
        name="a key that was forgotten leads to a connection of another",
        file="_core/affinity.py",
        old=("    forget(entry)\n    entry.affinity = key\n"),
        new="    entry.affinity = key\n",
        tests=(_DRIVER,),
    ),
)

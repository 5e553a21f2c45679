"""The bugs of others, planted here: each must be noticed by the case that is named after it."""

from __future__ import annotations

from mutations.bug import Mutation

_HANDED_OVER = "tests/regressions/test_handed_over.py::"
_SLOTS = "tests/regressions/test_slots.py::"
_FAIRNESS = "tests/regressions/test_fairness.py::"
_IDENTITY = "tests/regressions/test_identity.py::"
_SHUTDOWN = "tests/regressions/test_shutdown.py::"
_OVERLOAD = "tests/regressions/test_overload.py::"

MUTATIONS = (
    # ── handed over ─────────────────────────────────────────────────────────────
    Mutation(
        name="a cancelled block's connection is kept if no command is owed its reply",
        file="_connection/hand_over.py",
        old="        is_cut = exc is not None and not taints & VOUCHED\n",
        new=(
            "        is_cut = exc is not None and not taints & VOUCHED\n"
            "        if not taints and exc is not None and _is_cancellation(exc):\n"
            "            return None\n"
        ),
        tests=(_HANDED_OVER + "test_redis_py_2665",),
    ),
    Mutation(
        name="a cancelled block's connection is kept whatever is owed",
        file="_connection/hand_over.py",
        old=("    taints = exchange.taints\n    if taints & JUDGED:\n"),
        new=(
            "    taints = exchange.taints\n"
            "    if exc is not None and _is_cancellation(exc):\n"
            "        return None\n"
            "    if taints & JUDGED:\n"
        ),
        tests=(_HANDED_OVER + "test_redis_py_2624",),
    ),
    Mutation(
        name="an answer that was cut short counts as an answer",
        file="_connection/hand_over.py",
        old="(CUT_RECEIVE | OWED)",
        new="OWED",
        tests=(_HANDED_OVER + "test_dalli_956",),
    ),
    Mutation(
        name="a task that is still reading is forgotten when the lease ends",
        file="_connection/hand_over.py",
        old="exchange.in_progress > link.has_companion or taints & CUT_SEND",
        new="taints & CUT_SEND",
        tests=(_HANDED_OVER + "test_cve_2025_47907",),
    ),
    Mutation(
        name="what lies unread is somebody's",
        file="_connection/probe.py",
        old="return CloseReason.UNREAD_DATA if data else",
        new="return None if data else",
        tests=(_HANDED_OVER + "test_undici_ghsa_35p6_xmwp_9g52",),
    ),
    Mutation(
        name="nobody looks before an idle connection is lent",
        file="_lending/acquire.py",
        old="                if not poll(0) or (reason := entry.link.probe()) is None:\n",
        new="                if not poll(0) or (reason := None) is None:\n",
        tests=(_HANDED_OVER + "test_undici_ghsa_35p6_xmwp_9g52",),
    ),
    Mutation(
        name="what comes before the handshake is swallowed",
        file="_dial/dial.py",
        old='            progress.phase = "tls"\n',
        new=(
            '            progress.phase = "tls"\n'
            "            with trio.move_on_after(0.2):\n"
            "                await stream.receive_some()\n"
        ),
        tests=(_HANDED_OVER + "test_libpq_cve_2021_23222",),
    ),
    Mutation(
        name="what a proxy sends behind its answer is ignored",
        file="_dial/http_connect.py",
        old="    if talk.trailing_data[0]:\n",
        new="    if False:\n",
        tests=(_HANDED_OVER + "test_libpq_cve_2021_23222_in_a_tunnel",),
    ),
    Mutation(
        name="session tickets are taken for garbage",
        file="_connection/probe.py",
        old="    if data is None:\n        return None\n    return CloseReason",
        new="    if data is None:\n        return CloseReason.UNREAD_DATA\n    return CloseReason",
        tests=(_HANDED_OVER + "test_jetty_4113",),
    ),
    # ── slots ───────────────────────────────────────────────────────────────────
    Mutation(
        name="to give back can be cancelled",
        file="_lending/block.py",
        old=("        connection: Any = self.connection\n        self.connection = None\n"),
        new=(
            "        from trio.lowlevel import checkpoint\n"
            "\n"
            "        await checkpoint()\n"
            "        connection: Any = self.connection\n"
            "        self.connection = None\n"
        ),
        tests=(_SLOTS + "test_redis_py_4121", _SLOTS + "test_sqlalchemy_8145"),
    ),
    Mutation(
        name="a pool that ends says no goodbye",
        file="_core/ending.py",
        old="gracefully=not is_checked)",
        new="gracefully=False)",
        tests=(_SLOTS + "test_sqlalchemy_8145_when_all_is_cancelled",),
    ),
    Mutation(
        name="a connection that died while lent keeps its slot",
        file="_lending/release.py",
        old="        with_room(partial(self._drop, lease, reason))\n",
        new="        pass\n",
        tests=(_SLOTS + "test_coredis_of_a_pool_of_two",),
    ),
    Mutation(
        name="what was dialled for somebody who has gone is kept for them",
        file="_core/core.py",
        old="        self._ledger.dequeue(waiter)\n",
        new="        pass\n",
        tests=(
            _SLOTS + "test_httpcore_1093",
            _SLOTS + "test_generic_connection_pool_of_two",
            _SLOTS + "test_psycopg_pool_503",
        ),
    ),
    Mutation(
        name="a handshake that fails leaves its socket open",
        file="_dial/dial.py",
        old="        await close_now(stream, log)  # noqa: ASYNC102 - shields and bounds itself\n",
        new="        pass\n",
        tests=(_SLOTS + "test_httpcore2_of_a_cancelled_handshake",),
    ),
    Mutation(
        name="a handshake that the pool's end cancels leaves its socket open",
        file="_dial/dial.py",
        old="    except BaseException:\n        # By force",
        new="    except Exception:\n        # By force",
        tests=(_SLOTS + "test_httpcore2_of_a_handshake_when_the_pool_closes",),
    ),
    Mutation(
        name="a dial takes as long as it takes",
        file="_dial/dial.py",
        old="        with trio.move_on_after(timeout):\n",
        new="        with trio.move_on_after(3600):\n",
        tests=(_SLOTS + "test_asyncpg_464",),
    ),
    Mutation(
        name="those whose time is up stay in the queue",
        file="_core/ledger.py",
        old=("        self.dequeue(waiter)\n        waiter.outcome = outcome\n"),
        new="        waiter.outcome = outcome\n",
        tests=(_SLOTS + "test_asyncpg_467", _FAIRNESS + "test_vitess_20308"),
    ),
    Mutation(
        name="a connection whose check failed belongs to nobody",
        file="_core/checks.py",
        old=("        if reason is not None:\n            self._close(entry, reason, now)\n"),
        new=("        if reason is not None:\n            return False\n"),
        tests=(_SLOTS + "test_asyncpg_1269",),
    ),
    Mutation(
        name="what is handed to a task that is being cancelled is lost",
        file="_lending/undoing.py",
        old=(
            "        if entry is not None:\n"
            "            self.put_back(entry)\n"
            "        now = since  # unless the clock tells\n"
        ),
        new="        now = since  # unless the clock tells\n",
        tests=(_SLOTS + "test_psycopg_pool_503", _FAIRNESS + "test_aiohttp_9670"),
    ),
    Mutation(
        name="a cancellation that came with the hand-over is forgotten",
        file="_lending/acquire.py",
        old=("our waking.\n            await checkpoint_if_cancelled()\n            now"),
        new=("our waking.\n            now"),
        tests=(_SLOTS + "test_psycopg_pool_503",),
    ),
    Mutation(
        name="a check whose caller is cancelled has failed",
        file="_core/core.py",
        old="        self._ledger.dequeue(waiter)\n",
        new=(
            "        coming = waiter.coming\n"
            "        self._ledger.dequeue(waiter)\n"
            "        if coming is not None and coming.is_checking:\n"
            "            self.condemned(coming, CloseReason.UNHEALTHY, now)\n"
        ),
        tests=(_SLOTS + "test_psycopg_pool_1401",),
    ),
    # ── turns ───────────────────────────────────────────────────────────────────
    Mutation(
        name="what comes back is laid aside, and nobody who waits hears of it",
        file="_lending/release.py",
        old="(self._pass_on(lease) if sub.waiting else keep(lease, self._engine.now()))",
        new="keep(lease, self._engine.now())",
        tests=(_FAIRNESS + "test_aiohttp_4936",),
    ),
    Mutation(
        name="the youngest is served first",
        file="_core/serving.py",
        old="next(iter(queue.line))",
        new="next(reversed(queue.line))",
        tests=(_FAIRNESS + "test_go_31708",),
    ),
    Mutation(
        name="nobody asks for what the holders of the connections wait",
        file="_engine/holders.py",
        old="limit is full and self._is_deadlocked(limit)",
        new="False",
        tests=(_FAIRNESS + "test_openfga_3249",),
    ),
    Mutation(
        name="an endpoint keeps its connections for as long as it uses them",
        file="_core/pool_limit.py",
        old="        return first is not None and first.overtaken >= MAX_OVERTAKES\n",
        new="        return False\n",
        tests=(_FAIRNESS + "test_pgbouncer_131",),
    ),
    # ── identity ────────────────────────────────────────────────────────────────
    Mutation(
        name="the key of the pool lacks TLS",
        file="_values/value.py",
        old="        key = tuple(fields.values())\n",
        new='        key = tuple(fields[name] for name in fields if name != "tls")\n',
        tests=(
            _IDENTITY + "test_requests_cve_2024_35195",
            _IDENTITY + "test_envoy_cve_2022_21654",
        ),
    ),
    Mutation(
        name="the key of the pool lacks the name to verify",
        file="_values/value.py",
        old="        key = tuple(fields.values())\n",
        new='        key = tuple(fields[name] for name in fields if name != "server_hostname")\n',
        tests=(_IDENTITY + "test_envoy_cve_2022_21654",),
    ),
    Mutation(
        name="the key of the pool lacks a proxy's password",
        file="_values/value.py",
        old="        key = tuple(fields.values())\n",
        new='        key = tuple(fields[name] for name in fields if name != "password")\n',
        tests=(_IDENTITY + "test_curl_of_a_field_that_was_forgotten",),
    ),
    Mutation(
        name="a partition is known by where it lies in memory",
        file="_values/endpoint.py",
        old=(
            "            local_address=local_address,\n"
            "            login=_check_login(login),\n"
            "            partition=valid_partition(partition),\n"
        ),
        new=(
            "            local_address=local_address,\n"
            "            login=_check_login(login),\n"
            "            partition=id(valid_partition(partition)),\n"
        ),
        tests=(_IDENTITY + "test_curl_cve_2020_8231",),
    ),
    Mutation(
        name="a connection to oneself is one like any other",
        file="_dial/tcp.py",
        old="    if peer == sock.getsockname():\n",
        new="    if False:\n",
        tests=(_IDENTITY + "test_zookeeper_2101",),
    ),
    # ── the end ─────────────────────────────────────────────────────────────────
    Mutation(
        name="a closed pool still dials for those who come",
        file="_lending/acquire.py",
        old="            if core.state is not _OPEN:\n                self.refuse_if_closed()\n",
        new="",
        tests=(_SHUTDOWN + "test_httpcore_dials_on_a_closed_pool",),
    ),
    Mutation(
        name="a closed pool finishes its dials",
        file="_engine/engine.py",
        old="                self.dialler.begin_to_end()\n",
        new="                pass\n",
        tests=(_SHUTDOWN + "test_httpcore_dials_on_a_closed_pool",),
    ),
    Mutation(
        name="connections are struck off the books and stay open",
        file="_connection/link.py",
        old="        return try_close_now(self.stream, self.log)\n",
        new="        return True\n",
        tests=(_SHUTDOWN + "test_dream_of_a_pool_in_each_request",),
    ),
    Mutation(
        name="a pool opens by itself",
        file="_lending/acquire.py",
        old=('            raise PoolClosed(f"pool {self._name} is not open: use `async with`")\n'),
        new="            self._core.move(PoolState.OPEN)\n",
        tests=(_SHUTDOWN + "test_dream_of_a_pool_without_its_block",),
    ),
    Mutation(
        name="the reaper hurries",
        file="_pool/reap.py",
        old="trio.sleep(self._interval)",
        new="trio.sleep(self._interval / 9)",
        tests=(_SHUTDOWN + "test_caqti_139",),
    ),
    Mutation(
        name="no endpoint is ever forgotten",
        file="_core/core.py",
        old="        del self.subs[sub.endpoint]\n",
        new="",
        tests=(_SHUTDOWN + "test_undici_forgets_no_endpoint",),
    ),
    # ── overload ────────────────────────────────────────────────────────────────
    Mutation(
        name="a dial lasts no longer than its first caller waits",
        file="_engine/dialler.py",
        old="open_link(self._connector, endpoint, timeout, rules)",
        new="open_link(self._connector, endpoint, 0.5, rules)",
        tests=(_OVERLOAD + "test_sqlx_3132",),
    ),
    Mutation(
        name="a failed dial tells nobody, and time runs out",
        file="_core/failures.py",
        old=("                self._ledger.refuse(awaited_by, WaitOutcome.DIAL_FAILED, error)\n"),
        new="                pass\n",
        tests=(_OVERLOAD + "test_bb8_141",),
    ),
    Mutation(
        name="a slot that is free again wakes nobody",
        file="_core/ledger.py",
        old=("            sub.note_rules()\n        self.touched[sub] = None\n"),
        new="            sub.note_rules()\n",
        tests=(_OVERLOAD + "test_bb8_167",),
    ),
    Mutation(
        name="an endpoint dials one connection after the other",
        file="_core/records.py",
        old="config.max_connecting_per_endpoint or sys.maxsize",
        new="config.max_connecting_per_endpoint or 1",
        tests=(_OVERLOAD + "test_hikaricp_2161",),
    ),
    Mutation(
        name="all dials wait in one line",
        file="_dial/dial.py",
        old="    progress = Progress()\n    progress_module.current.set(progress)\n    try:\n",
        new=(
            "    progress = Progress()\n    progress_module.current.set(progress)\n"
            "    global _line\n    _line = globals().get('_line') or trio.Lock()\n"
            "    try:\n      async with _line:\n"
        ),
        tests=(_OVERLOAD + "test_hikaricp_2161_on_real_sockets",),
    ),
    Mutation(
        name="what is idle does not count",
        file="_core/ledger.py",
        old="            self.pool_limit.became_idle(entry)\n",
        new=(
            "            self.pool_limit.became_idle(entry)\n"
            "            self.pool_limit.limit.repay(entry)\n"
        ),
        tests=(_OVERLOAD + "test_aiohttp_counts_what_is_idle_too",),
    ),
)

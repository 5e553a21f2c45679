"""Bugs planted where the pool turns callers away: the circuit breaker, marks, and shed load."""

from __future__ import annotations

from typing import Final

from mutations.bug import Mutation

SCENARIOS: Final = (
    "tests/unit/core/test_circuit.py",
    "tests/unit/core/test_shedding.py",
    "tests/unit/core/test_refusing.py",
    "tests/unit/core/test_gate.py",
    "tests/unit/errors/test_blame.py",
    "tests/unit/pool/test_circuit.py",
    "tests/unit/pool/test_shedding.py",
    "tests/model/test_state_machine.py",
)


def plant(name: str, file: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(name=name, file=file, old=old, new=new, tests=tests or SCENARIOS)


MUTATIONS: Final = (
    # ── the circuit ─────────────────────────────────────────────────────────────
    plant(
        "the circuit opens one failure too late",
        "_core/circuit.py",
        "self._failures >= self._breaker.failure_threshold",
        "self._failures > self._breaker.failure_threshold",
    ),
    plant(
        "a success does not end the row of failures",
        "_core/circuit.py",
        "        self._failures = 0\n        self._is_reported = False\n        if",
        "        self._is_reported = False\n        if",
    ),
    plant(
        "a dial that succeeds ends a row that was reported",
        "_core/circuit.py",
        "        if self.state is _HALF_OPEN or not self._is_reported:\n            self.proved()",
        "        self.proved()",
    ),
    plant(
        "a trial does not close what reports have opened",
        "_core/circuit.py",
        "        if self.state is _HALF_OPEN or not self._is_reported:",
        "        if not self._is_reported:",
    ),
    plant(
        "a report is no different from a failed dial",
        "_core/circuit.py",
        "        self.failed(math.inf, now)\n        self._is_reported = True",
        "        self.failed(math.inf, now)",
    ),
    plant(
        "a report amid a trial changes nothing",
        "_core/circuit.py",
        "        self.failed(math.inf, now)",
        "        self.failed(-math.inf, now)",
    ),
    plant(
        "an open circuit has places",
        "_core/circuit.py",
        "        if self.state is _OPEN and now < self._tries_at:\n            return 0\n",
        "",
    ),
    plant(
        "an open circuit is tried a moment too late",
        "_core/circuit.py",
        "now < self._tries_at:\n",
        "now <= self._tries_at:\n",
    ),
    plant(
        "a trial takes no place",
        "_core/circuit.py",
        "            self.trials += 1",
        "            pass",
    ),
    plant(
        "a trial keeps its place",
        "_core/circuit.py",
        "            self.trials -= 1",
        "            pass",
    ),
    plant(
        "a dial from before the circuit opened counts as a trial",
        "_core/circuit.py",
        "        return self.state is _HALF_OPEN and began_at > self._opened_at",
        "        return self.state is _HALF_OPEN",
    ),
    plant(
        "a trial that fails leaves the circuit half open",
        "_core/circuit.py",
        "        elif self._is_trial(began_at):\n            self._open(now)",
        "        elif self._is_trial(began_at):\n            pass",
    ),
    plant(
        "failures keep an open circuit open for longer",
        "_core/circuit.py",
        "        elif self._is_trial(began_at):\n            self._open(now)",
        "        elif self.state is _OPEN:\n            self._tries_at = now + 10.0\n"
        "        elif self._is_trial(began_at):\n            self._open(now)",
    ),
    plant(
        "the trials of the last time still count",
        "_core/circuit.py",
        "        self.state = state\n        self.trials = 0\n",
        "        self.state = state\n",
    ),
    plant(
        "a circuit may open for no time at all",
        "_core/circuit.py",
        "now + max(self._breaker.reset_timeout, SHORTEST)",
        "now + self._breaker.reset_timeout",
    ),
    plant(
        "nobody hears that a circuit has changed",
        "_core/circuit.py",
        "        self._tell(old, state)\n",
        "",
    ),
    plant(
        "a half-open circuit with no place says that it opens by itself",
        "_core/circuit.py",
        "        return -math.inf if self.count_places(math.inf) else math.inf",
        "        return -math.inf",
    ),
    plant(
        "a caller is told to come again at once",
        "_core/circuit.py",
        "        return max(0.0, self._tries_at - now) if self.state is _OPEN else 0.0",
        "        return 0.0",
    ),
    plant(
        "a circuit is forgotten the moment that it may be tried",
        "_core/circuit.py",
        "self._tries_at + self._breaker.reset_timeout",
        "self._tries_at",
    ),
    # ── the gate ────────────────────────────────────────────────────────────────
    plant(
        "the circuit is no reason for the gate",
        "_core/gate.py",
        "        is_let_through = self.circuit is None or self.circuit.count_places(now) > 0\n",
        "        is_let_through = True\n",
    ),
    plant(
        "those who wait in a pause are told that the circuit is open",
        "_core/gate.py",
        "not (self.circuit.count_places(now) or self.is_paused)",
        "not self.circuit.count_places(now)",
    ),
    plant(
        "as many dials try the server as there are waiters",
        "_core/gate.py",
        "        return self._failures > 0 or self.circuit_state is not CircuitState.CLOSED\n",
        "        return self._failures > 0\n",
    ),
    plant(
        "a trial puts off the other trials",
        "_core/gate.py",
        "            if circuit is None or self.is_in_doubt or not circuit.has_more_trials:\n",
        "            if True:\n",
    ),
    plant(
        "what this machine lacks counts against the server",
        "_core/gate.py",
        "        if self.circuit is not None and is_servers:",
        "        if self.circuit is not None:",
    ),
    plant(
        "a dial that is given up keeps its place",
        "_core/failures.py",
        "        gate.dial_over(entry.created_at)\n        if error is None:\n            return\n",
        "        if error is None:\n            return\n        gate.dial_over(entry.created_at)\n",
    ),
    plant(
        "the end of a pause ends a mark",
        "_core/gate.py",
        "        self.is_paused = self.is_unhealthy\n",
        "        self.is_paused = False\n",
    ),
    plant(
        "the end of a mark ends a pause",
        "_core/gate.py",
        "        self.is_paused = is_unhealthy or self.is_told_to_pause\n",
        "        self.is_paused = is_unhealthy\n",
    ),
    plant(
        "an open circuit is forgotten and nobody hears that it is closed",
        "_core/core.py",
        "        sub.gate.forget()\n",
        "",
    ),
    # ── who is turned away ──────────────────────────────────────────────────────
    plant(
        "who waits for a dial that may not start waits on",
        "_core/dials.py",
        "            self._refusing.turn_away_undiallable(sub, now)\n",
        "            pass\n",
    ),
    plant(
        "those are turned away whom a connection that is lent may serve",
        "_core/refusing.py",
        "        has_circulation = is_in_circulation(sub)\n",
        "        has_circulation = False\n",
    ),
    plant(
        "those who want a new connection wait for what is lent",
        "_core/refusing.py",
        "is_hopeless = queue.has_fresh_before(None, len(sub.spare_dials) + sub.void)",
        "is_hopeless = False",
    ),
    plant(
        "those are turned away whom a dial under way will serve",
        "_core/refusing.py",
        "sub.count_needed() > sub.count_coming() + sub.void",
        "sub.queue.count_unprovided() > 0",
    ),
    plant(
        "the oldest is turned away, and the youngest served",
        "_core/refusing.py",
        "queue.find_youngest(is_fresh=has_circulation) if is_hopeless else None\n",
        "queue.find(is_unprovided=True) if is_hopeless else None\n",
    ),
    plant(
        "a piece of those who are turned away is all of them",
        "_core/refusing.py",
        "            self._ledger.refuse(waiter, WaitOutcome.CIRCUIT_OPEN)\n"
        "        self._ledger.rest(sub, now)\n",
        "            self._ledger.refuse(waiter, WaitOutcome.CIRCUIT_OPEN)\n",
    ),
    plant(
        "who waits for an unhealthy endpoint waits on, if all slots are taken",
        "_core/records.py",
        "self.shares_limit or self.min_idle or self.warmers or gate.is_unhealthy",
        "self.shares_limit or self.min_idle or self.warmers",
    ),
    plant(
        "a connection is lent to one whose time is up",
        "_core/refusing.py",
        "        if waiter.deadline <= now:\n"
        "            self._ledger.refuse(waiter, WaitOutcome.TIMEOUT)\n"
        "            return True\n",
        "",
    ),
    plant(
        "a wait for a check or a dial of one's own counts as load",
        "_core/serving.py",
        "(queue.codel is not None and is_used)",
        "queue.codel is not None",
    ),
    plant(
        "a dial that starts is nobody's turn",
        "_core/dials.py",
        "            if not self._refusing.is_turned_away(sub, waiter, now):\n"
        "                return waiter\n",
        "            return waiter\n",
    ),
    plant(
        "a wait for the back-off counts as load",
        "_core/dials.py",
        "            if waiter is None or sub.gate.is_failing:\n",
        "            if waiter is None:\n",
    ),
    plant(
        "those who share connections are never shed",
        "_core/sharing.py",
        "            if self._refusing.is_turned_away(sub, waiter, now):\n",
        "            if False:\n",
    ),
    # ── shedding ────────────────────────────────────────────────────────────────
    plant(
        "a queue stands at the target",
        "_core/shedding.py",
        "self.stands = self._least > self._target",
        "self.stands = self._least >= self._target",
    ),
    plant(
        "the last wait of an interval counts, not the least",
        "_core/shedding.py",
        "        elif waited < self._least:\n",
        "        else:\n",
    ),
    plant(
        "an interval never begins anew",
        "_core/shedding.py",
        "            self._least = waited\n            self._ends_at = now + self._interval\n",
        "            self._ends_at = now + self._interval\n",
    ),
    plant(
        "an empty queue still stands",
        "_core/shedding.py",
        "            self.stands = False\n            self._least = 0.0\n",
        "            self._least = 0.0\n",
    ),
    plant(
        "an interval that began with an empty queue has a standing one",
        "_core/shedding.py",
        "            self.stands = False\n            self._least = 0.0\n",
        "            self.stands = False\n            self._least = waited\n",
    ),
    plant(
        "everybody above the target is late",
        "_core/shedding.py",
        "waited > 2 * self._target",
        "waited > self._target",
    ),
    plant(
        "the last in the queue is shed as well",
        "_core/shedding.py",
        "self.stands and not is_last and waited",
        "self.stands and waited",
    ),
    plant(
        "a long target has a short interval",
        "_core/shedding.py",
        "max(target, SHORTEST_INTERVAL)",
        "SHORTEST_INTERVAL",
    ),
    plant(
        "a short target has a short interval",
        "_core/shedding.py",
        "max(target, SHORTEST_INTERVAL)",
        "target",
    ),
    # ── whose fault ─────────────────────────────────────────────────────────────
    plant(
        "a name that does not exist is the server's fault",
        "_errors/blame.py",
        "LocalResourceError | ResolveError",
        "LocalResourceError",
    ),
    plant(
        "a lack of files is the server's fault",
        "_errors/blame.py",
        "LocalResourceError | ResolveError",
        "ResolveError",
    ),
    plant(
        "a certificate that nobody trusts is a failure of the server",
        "_errors/blame.py",
        "ssl.SSLCertVerificationError | ConfigError",
        "ConfigError",
    ),
    plant(
        "only the error itself is looked at",
        "_errors/blame.py",
        "_MOST_CAUSES = 20",
        "_MOST_CAUSES = 1",
    ),
)

"""Bugs in what people and exporters are shown: statistics, Prometheus, OpenTelemetry."""

from __future__ import annotations

from mutations.bug import Mutation

_MEMORY = "tests/unit/stats/test_memory.py"
_REAP = "tests/unit/pool/test_reap.py"
_SNAPSHOT = "tests/unit/stats/test_snapshot.py"
_PROMETHEUS = "tests/contrib/prometheus/test_prometheus.py"
_METRICS = "tests/contrib/opentelemetry/test_metrics.py"
_SPANS = "tests/contrib/opentelemetry/test_spans.py"

MUTATIONS = (
    # ── counters that outlive their connections ────────────────────────────────────
    Mutation(
        name="an endpoint that returns begins with new counters",
        file="_core/core.py",
        old="        sub.counters = self.memory.kept.get(endpoint, sub.counters)\n",
        new="",
        tests=(_REAP,),
    ),
    Mutation(
        name="an endpoint that has returned is remembered as well",
        file="_core/core.py",
        old="            self.memory.pop(endpoint)\n",
        new="",
        tests=("tests/unit/core/test_core_orders.py",),
    ),
    Mutation(
        name="the memory of counters has no end",
        file="_stats/memory.py",
        old="        for _ in range(min(len(self.kept) - KEPT, 2)):\n",
        new="        for _ in range(0):\n",
        tests=(_MEMORY,),
    ),
    Mutation(
        name="a forgotten endpoint is lost to the pool's totals",
        file="_stats/memory.py",
        old="            self.forgotten.absorb(counters)\n",
        new="",
        tests=(_MEMORY,),
    ),
    Mutation(
        name="an endpoint is forgotten while a lease has still to report its end",
        file="_stats/memory.py",
        old="        if counters.acquired > counters.use_time.count:\n",
        new="        if False:\n",
        tests=(_MEMORY,),
    ),
    # ── text for people ────────────────────────────────────────────────────────────
    Mutation(
        name="a table is wider than the terminal",
        file="_stats/overview.py",
        old="    if max(map(len, text.splitlines())) > width:\n",
        new="    if False:\n",
        tests=(_SNAPSHOT,),
    ),
    Mutation(
        name="endpoints that look alike have the same name in the table",
        file="_stats/overview.py",
        old="        if seen[label] > 1:\n",
        new="        if False:\n",
        tests=(_SNAPSHOT,),
    ),
    Mutation(
        name="a first dial is taken for a high wait",
        file="_stats/overview.py",
        old="wait.p99 >= HIGH and (wait.count >= 100 or wait.p50 >= HIGH)",
        new="wait.p99 >= HIGH",
        tests=(_SNAPSHOT,),
    ),
    Mutation(
        name="the pool's own limit is never what tasks wait for",
        file="_stats/overview.py",
        old="pool.limit is not None and _count(pool) >= pool.limit",
        new="False",
        tests=(_SNAPSHOT,),
    ),
    Mutation(
        name="a duration counts for the next higher limit only",
        file="_stats/histogram.py",
        old="bisect_right(_USUAL, limit), len(buckets)",
        new="bisect_right(_USUAL, limit / 2), len(buckets)",
        tests=("tests/unit/stats/test_histogram.py",),
    ),
    # ── Prometheus ─────────────────────────────────────────────────────────────────
    Mutation(
        name="a counter may go back between two scrapes",
        file="contrib/prometheus.py",
        old="max(number, self._shown.get(key, number))",
        new="number",
        tests=(_PROMETHEUS,),
    ),
    Mutation(
        name="endpoints that look alike overwrite one another's numbers",
        file="contrib/prometheus.py",
        old="self.growing[name, _TOTAL, *labels] += getattr(member, field)",
        new="self.growing[name, _TOTAL, *labels] = getattr(member, field)",
        tests=(_PROMETHEUS,),
    ),
    Mutation(
        name="forgotten endpoints are in no series",
        file="contrib/prometheus.py",
        old="        self._add_forgotten(stats)\n",
        new="",
        tests=(_PROMETHEUS,),
    ),
    Mutation(
        name="a histogram lacks those that took longest",
        file="contrib/prometheus.py",
        old="counts = [*count_within_each(summary, _LIMITS), summary.count]",
        new="counts = [*count_within_each(summary, _LIMITS), 0]",
        tests=(_PROMETHEUS,),
    ),
    Mutation(
        name="no second collector can be registered",
        file="contrib/prometheus.py",
        old="        return []\n",
        new="        return self.collect()\n",
        tests=(_PROMETHEUS,),
    ),
    # ── OpenTelemetry ──────────────────────────────────────────────────────────────
    Mutation(
        name="a duration is told again at each look",
        file="contrib/_otel/meters.py",
        old="            told.counts[place] += piece\n",
        new="",
        tests=(_METRICS,),
    ),
    Mutation(
        name="the sum of durations is only about right",
        file="contrib/_otel/meters.py",
        old="        seconds = SPREAD[place] * stretch\n",
        new="        seconds = SPREAD[place]\n",
        tests=(_METRICS,),
    ),
    Mutation(
        name="recording may take longer than the SDK allows",
        file="contrib/_otel/meters.py",
        old="            if time.monotonic() > until:\n",
        new="            if False:\n",
        tests=(_METRICS,),
    ),
    Mutation(
        name="each observer has instruments of its own, of which the SDK drops some",
        file="contrib/_otel/meters.py",
        old="    if convention not in known:\n",
        new="    if True:\n",
        tests=(_METRICS,),
    ),
    Mutation(
        name="a closed pool is kept for ever",
        file="contrib/_otel/meters.py",
        old="                    watched.pools.remove(pool)\n",
        new="                    pass\n",
        tests=(_METRICS,),
    ),
    Mutation(
        name="time-outs begin anew with each pool",
        file="contrib/_otel/meters.py",
        old="self._timeouts[key] += max(",
        new="self._timeouts[key] = max(",
        tests=(_METRICS,),
    ),
    Mutation(
        name="an idle hit makes a span",
        file="contrib/opentelemetry.py",
        old="        if waited >= _SHORTEST or info.uses == 1:\n",
        new="        if True:\n",
        tests=(_SPANS,),
    ),
    Mutation(
        name="a dial belongs to the task that made it possible",
        file="contrib/_otel/watched.py",
        old="                return task.context.run(get_current)\n",
        new="                return get_current()\n",
        tests=(_SPANS,),
    ),
    Mutation(
        name="a dial in reserve belongs to whoever passes by",
        file="contrib/_otel/watched.py",
        old="                    return Context()\n",
        new="                    return get_current()\n",
        tests=(_SPANS,),
    ),
    Mutation(
        name="the dial of another pool is taken for this one",
        file="contrib/_otel/watched.py",
        old="entry.id == info.id and entry.created_at == info.created_at",
        new="entry.id == info.id",
        tests=(_SPANS,),
    ),
    Mutation(
        name="a cancelled wait is an error",
        file="contrib/opentelemetry.py",
        old="            if not isinstance(error, trio.Cancelled):\n",
        new="            if True:\n",
        tests=(_SPANS,),
    ),
    Mutation(
        name="a span begins when it ends",
        file="contrib/opentelemetry.py",
        old="start_time=time.time_ns() - round(seconds * 1e9),",
        new="start_time=time.time_ns(),",
        tests=(_SPANS,),
    ),
)

"""What the SDK exports of waits: a span for each, in the caller's trace."""

from __future__ import annotations

import json

import pytest
import trio
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from trio.testing import MockClock

from conpool import AcquireTimeout, ConnectError, Endpoint, EndpointGroup, UnixEndpoint
from tests.support.pools import HERE, THERE, Network, hold, open_pool, settle

from .sdk import SDK, parent_id


@pytest.fixture
def sdk() -> SDK:
    return SDK()


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


async def test_a_dial_and_the_wait_for_it_are_children_of_the_callers_span(
    sdk: SDK, autojump_clock: MockClock
) -> None:
    async with open_pool(Network(delay=0.3), observers=[sdk.observer()]) as pool:
        with sdk.tracer.start_as_current_span("request") as request:
            async with pool.connection(HERE) as conn:
                number = conn.id
    dial, acquire = sdk.spans
    assert (dial.name, acquire.name) == ("conpool.connect", "conpool.acquire")
    assert (dial.kind, acquire.kind) == (SpanKind.CLIENT, SpanKind.INTERNAL)
    for span in (dial, acquire):
        assert parent_id(span) == request.get_span_context().span_id
        assert span.context is not None
        assert span.context.trace_id == request.get_span_context().trace_id
        assert span.status.status_code is StatusCode.UNSET
        assert seconds(span) == pytest.approx(0.3, abs=0.1)
        assert dict(span.attributes or {}) == {
            "conpool.endpoint": str(HERE),
            "server.address": HERE.host,
            "server.port": HERE.port,
            "conpool.connection.id": number,
        }


async def test_a_lease_of_an_idle_connection_has_no_span(
    sdk: SDK, autojump_clock: MockClock
) -> None:
    async with open_pool(observers=[sdk.observer()]) as pool:
        await hold(pool)
        before = len(sdk.spans)
        await hold(pool)
        pool.release(pool.acquire_nowait(HERE))
        assert len(sdk.spans) == before == 2


async def test_a_dial_that_takes_no_time_has_its_spans_all_the_same(
    sdk: SDK, mock_clock: MockClock
) -> None:
    async with open_pool(observers=[sdk.observer()]) as pool, pool.connection(HERE):
        assert [span.name for span in sdk.spans] == ["conpool.connect", "conpool.acquire"]


@pytest.mark.parametrize(("held", "spans"), [(0.0009, 1), (0.0011, 2)])
async def test_a_wait_of_less_than_a_millisecond_has_no_span(
    sdk: SDK, autojump_clock: MockClock, held: float, spans: int
) -> None:
    async with (
        open_pool(observers=[sdk.observer()], max_connections_per_endpoint=1) as pool,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(hold, pool, HERE, held)
        await hold(pool)
    assert len(sdk.named("conpool.acquire")) == spans


async def test_a_wait_for_a_connection_that_is_given_back_is_a_span(
    sdk: SDK, autojump_clock: MockClock
) -> None:
    async with (
        open_pool(observers=[sdk.observer()], max_connections_per_endpoint=1) as pool,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(hold, pool, HERE, 2.0)
        with sdk.tracer.start_as_current_span("second") as second:
            await hold(pool)
    span = sdk.named("conpool.acquire")[-1]
    assert parent_id(span) == second.get_span_context().span_id
    assert seconds(span) == pytest.approx(2.0, abs=0.1)


async def test_a_dial_belongs_to_the_task_that_waits_for_it_whoever_makes_it_possible(
    sdk: SDK, autojump_clock: MockClock
) -> None:
    """A lease ends under a limit for all endpoints: only now can the other endpoint be dialled."""
    async with open_pool(observers=[sdk.observer()], max_connections=1) as pool:

        async def hold_first(task_status: trio.TaskStatus[None]) -> None:
            with sdk.tracer.start_as_current_span("first"):
                async with pool.connection(HERE):
                    task_status.started()
                    await trio.sleep(2.0)

        async with trio.open_nursery() as nursery:
            await nursery.start(hold_first)
            with sdk.tracer.start_as_current_span("second") as second:
                await hold(pool, THERE)
    dial = sdk.named("conpool.connect")[-1]
    assert (dial.attributes or {})["server.address"] == THERE.host
    assert parent_id(dial) == second.get_span_context().span_id


async def test_many_dials_at_once_are_each_its_callers(sdk: SDK, autojump_clock: MockClock) -> None:
    async with open_pool(Network(delay=1.0), observers=[sdk.observer()]) as pool:
        parents: list[int] = []

        async def ask() -> None:
            with sdk.tracer.start_as_current_span("request") as request:
                parents.append(request.get_span_context().span_id)
                await hold(pool)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
    for name in ("conpool.connect", "conpool.acquire"):
        assert sorted(parent_id(span) or 0 for span in sdk.named(name)) == sorted(parents)


async def test_two_pools_that_dial_the_same_endpoint_are_not_mixed_up(
    sdk: SDK, autojump_clock: MockClock
) -> None:
    observer = sdk.observer()
    async with (
        open_pool(Network(delay=1.0), observers=[observer]) as one,
        open_pool(Network(delay=2.0), observers=[observer]) as two,
        trio.open_nursery() as nursery,
    ):
        parents: list[int] = []
        for delay, pool in ((0.1, one), (0.2, two)):
            await trio.sleep(delay)
            with sdk.tracer.start_as_current_span("request") as request:
                parents.append(request.get_span_context().span_id)
                nursery.start_soon(hold, pool)
    assert [parent_id(span) for span in sdk.named("conpool.connect")] == parents


async def test_warming_asked_for_is_the_callers_and_any_other_dial_is_nobodys(
    sdk: SDK, autojump_clock: MockClock
) -> None:
    with sdk.tracer.start_as_current_span("program"):
        async with open_pool(
            Network(delay=0.1), observers=[sdk.observer()], min_idle_per_endpoint=2
        ) as pool:
            with sdk.tracer.start_as_current_span("warm") as warm:
                await pool.warm(HERE, 1)
            (asked,) = sdk.named("conpool.connect")
            assert parent_id(asked) == warm.get_span_context().span_id
            with sdk.tracer.start_as_current_span("request"):
                await hold(pool)
            await settle()
            others = sdk.named("conpool.connect")[1:]
    assert others
    assert {parent_id(span) for span in others} == {None}


async def test_a_failure_is_an_error_with_its_kind(sdk: SDK, autojump_clock: MockClock) -> None:
    network = Network()
    network.refuse()
    async with open_pool(network, observers=[sdk.observer()]) as pool:
        with pytest.raises(ConnectError) as caught:
            await pool.acquire(HERE)
    for span in sdk.spans:
        assert span.status.status_code is StatusCode.ERROR
        assert "Connection refused" in (span.status.description or "")
        assert (span.attributes or {})["error.type"] == "conpool.ConnectRefused"
        (event,) = span.events
        assert (event.attributes or {})["exception.type"] == "conpool.ConnectRefused"
    assert sdk.spans[-1].status.description == str(caught.value)
    assert len(sdk.spans) == 2


async def test_a_time_out_is_an_error_and_a_cancellation_is_none(
    sdk: SDK, autojump_clock: MockClock
) -> None:
    network = Network()
    network.silent.add(HERE)
    async with open_pool(network, observers=[sdk.observer()]) as pool:
        with pytest.raises(AcquireTimeout):
            await pool.acquire(HERE, timeout=1.0)
        with trio.move_on_after(2.0):
            await pool.acquire(HERE)
    timed_out, cancelled = sdk.named("conpool.acquire")
    assert timed_out.status.status_code is StatusCode.ERROR
    assert (timed_out.attributes or {})["error.type"] == "conpool.AcquireTimeout"
    assert cancelled.status.status_code is StatusCode.UNSET
    assert (cancelled.attributes or {})["error.type"] == "trio.Cancelled"
    assert not cancelled.events
    assert [round(seconds(span)) for span in (timed_out, cancelled)] == [1, 2]


async def test_a_unix_socket_and_a_group_have_their_attributes(
    sdk: SDK, autojump_clock: MockClock
) -> None:
    observer = sdk.observer()
    observer.acquire_failed(EndpointGroup([HERE, THERE]), trio.WouldBlock(), 0.0)
    (span,) = sdk.spans
    assert dict(span.attributes or {}).keys() == {"conpool.endpoint", "error.type"}
    async with open_pool(observers=[observer]) as pool:
        await hold(pool, UnixEndpoint("/run/x.sock"))
    attributes = dict(sdk.spans[-1].attributes or {})
    assert attributes["server.address"] == "/run/x.sock"
    assert attributes["network.transport"] == "unix"


async def test_nothing_is_kept_of_dials_that_are_over(sdk: SDK, autojump_clock: MockClock) -> None:
    network = Network()
    network.refuse(THERE)
    observer = sdk.observer()
    async with open_pool(network, observers=[observer]) as pool:
        await hold(pool)
        with pytest.raises(ConnectError):
            await pool.acquire(THERE)
        network.silent.add(Endpoint("silent.example", 1))
        with trio.move_on_after(1):
            await pool.acquire(Endpoint("silent.example", 1))
    assert not observer._dials


async def test_a_caller_without_a_span_begins_a_trace(sdk: SDK, autojump_clock: MockClock) -> None:
    async with open_pool(observers=[sdk.observer()]) as pool:
        await hold(pool)
    assert [parent_id(span) for span in sdk.spans] == [None, None]
    assert all(json.loads(span.to_json()) for span in sdk.spans)


def test_what_is_not_recorded_costs_no_text(sdk: SDK) -> None:
    from opentelemetry import trace

    class Mute(Exception):
        def __str__(self) -> str:
            raise AssertionError("nobody wanted to know")

    unsampled = trace.NonRecordingSpan(
        trace.SpanContext(1, 1, is_remote=False, trace_flags=trace.TraceFlags(0))
    )
    token = attach(trace.set_span_in_context(unsampled))
    try:
        sdk.observer().acquire_failed(HERE, Mute(), 1.0)
    finally:
        detach(token)
    assert not sdk.spans

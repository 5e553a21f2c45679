from __future__ import annotations

from conpool._stats.counters import Counters
from conpool._stats.memory import KEPT, Memory
from conpool._values.endpoint import Endpoint
from conpool._values.states import CloseReason


def endpoint(number: int) -> Endpoint:
    return Endpoint(f"host{number}.example", 80)


def counters_of(count: int, *, ended: int | None = None) -> Counters:
    counters = Counters()
    counters.other_leases = count
    for _ in range(count if ended is None else ended):
        counters.use_time.add(1.0)
    counters.count_closed(CloseReason.USES)
    return counters


def filled(count: int) -> Memory:
    memory = Memory()
    for number in range(count):
        memory.keep(endpoint(number), counters_of(1))
    return memory


def test_the_last_thousand_endpoints_are_remembered_each_with_its_own_counters() -> None:
    memory = filled(KEPT)
    assert len(memory.kept) == KEPT == 1000
    assert memory.forgotten.acquired == 0
    last = counters_of(7)
    memory.keep(endpoint(KEPT), last)
    assert list(memory.kept) == [endpoint(number) for number in range(1, KEPT + 1)]
    assert memory.kept[endpoint(KEPT)] is last


def test_the_counters_of_the_others_are_summed() -> None:
    memory = filled(KEPT + 30)
    assert len(memory.kept) == KEPT
    assert memory.forgotten.acquired == memory.forgotten.use_time.count == 30
    assert memory.forgotten.closed_by_reason == {CloseReason.USES: 30}


def test_an_endpoint_that_returns_is_the_last_when_it_goes_again() -> None:
    memory = filled(KEPT)
    back = memory.kept[endpoint(0)]
    memory.pop(endpoint(0))
    memory.pop(endpoint(0))  # it is not there: so be it
    memory.keep(endpoint(0), back)
    memory.keep(endpoint(KEPT), counters_of(1))
    assert memory.kept[endpoint(0)] is back
    assert endpoint(1) not in memory.kept


def test_counters_that_a_lease_has_still_to_report_to_are_not_summed() -> None:
    memory = Memory()
    late = counters_of(2, ended=1)
    memory.keep(endpoint(-1), late)
    for number in range(2 * KEPT):
        memory.keep(endpoint(number), counters_of(1))
    assert memory.kept[endpoint(-1)] is late
    late.use_time.add(3.0)
    for number in range(2 * KEPT, 4 * KEPT):
        memory.keep(endpoint(number), counters_of(1))
    assert endpoint(-1) not in memory.kept
    assert memory.forgotten.use_time.max == 3.0
    assert len(memory.kept) == KEPT
    assert memory.forgotten.acquired == 3 * KEPT + 2


def test_no_more_stay_than_have_to() -> None:
    memory = Memory()
    late = [counters_of(1, ended=0) for _ in range(50)]
    for number, counters in enumerate(late):
        memory.keep(endpoint(-1 - number), counters)
    for number in range(3 * KEPT):
        memory.keep(endpoint(number), counters_of(1))
        assert len(memory.kept) <= KEPT + len(late)
    for counters in late:
        counters.use_time.add(1.0)
    for number in range(3 * KEPT, 6 * KEPT):
        memory.keep(endpoint(number), counters_of(1))
    assert len(memory.kept) == KEPT

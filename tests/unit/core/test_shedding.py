"""The rule for shedding load by itself: when a queue stands, and who has waited for too long."""

from __future__ import annotations

from conpool._core.shedding import SHORTEST_INTERVAL, Codel

TARGET = 1.0


def stand(codel: Codel, until: float = 3.0) -> None:
    """From 0 to `until` there is a turn each tenth of a second, after a wait of 1.5 seconds."""
    for tenth in range(round(until * 10)):
        assert not codel.is_too_late(tenth / 10 - 1.5, tenth / 10, is_last=False)


def is_too_late(codel: Codel, waited: float, now: float = 3.0, *, is_last: bool = False) -> bool:
    return codel.is_too_late(now - waited, now, is_last=is_last)


def test_a_queue_stands_once_the_least_wait_of_an_interval_was_above_the_target() -> None:
    codel = Codel(TARGET)
    assert not codel.stands
    stand(codel)
    assert codel.stands


def test_the_interval_is_as_long_as_the_target() -> None:
    """The queue of the first turn was empty a moment before, so its interval does not count."""
    codel = Codel(TARGET)
    stand(codel, 1.9)
    assert not codel.stands
    is_too_late(codel, 1.5, 2.0)
    assert codel.stands


def test_who_has_waited_for_more_than_twice_the_target_is_late_then() -> None:
    codel = Codel(TARGET)
    stand(codel)
    assert not is_too_late(codel, 2.0)
    assert is_too_late(codel, 2.1)


def test_nobody_is_late_while_the_queue_flows() -> None:
    codel = Codel(TARGET)
    assert not is_too_late(codel, 99.0, 0.0)
    assert not is_too_late(codel, 99.0, 0.5)


def test_one_short_wait_in_an_interval_is_enough_for_it_to_flow() -> None:
    codel = Codel(TARGET)
    stand(codel, 2.5)
    assert codel.stands
    is_too_late(codel, 0.9, 2.9)
    is_too_late(codel, 1.5, 3.9)
    assert not codel.stands


def test_a_wait_as_long_as_the_target_is_not_above_it() -> None:
    codel = Codel(TARGET)
    for tenth in range(40):
        is_too_late(codel, 1.0, tenth / 10)
    assert not codel.stands


def test_a_burst_that_drains_within_an_interval_loses_nobody() -> None:
    codel = Codel(TARGET)
    for tenth in range(20):
        assert not codel.is_too_late(0.0, tenth / 10, is_last=False)


def test_the_last_one_is_served_however_late() -> None:
    codel = Codel(TARGET)
    stand(codel)
    assert not is_too_late(codel, 9.0, is_last=True)


def test_one_that_came_after_the_last_turn_shows_that_the_queue_was_empty() -> None:
    codel = Codel(TARGET)
    stand(codel)
    assert not is_too_late(codel, 50.0, 60.0)
    assert not codel.stands
    assert not is_too_late(codel, 51.0, 61.0), "an interval that began empty has no standing queue"
    assert not codel.stands


def test_turns_that_are_far_apart_make_a_queue_stand_as_well() -> None:
    """One slow connection comes back each few seconds, and the queue never empties."""
    codel = Codel(TARGET)
    late = [is_too_late(codel, 4.0 * turn, 5.0 * turn) for turn in range(1, 6)]
    assert late == [False, False, True, True, True]


def test_the_interval_is_the_target_but_not_too_short() -> None:
    short = Codel(0.005)
    for number in range(300):
        is_too_late(short, 0.02, number / 1000)
        assert short.stands == (number / 1000 >= 2 * SHORTEST_INTERVAL)


def test_says_whether_it_stands() -> None:
    codel = Codel(TARGET)
    assert repr(codel) == "<Codel flows, least 0.0>"
    stand(codel)
    assert repr(codel) == "<Codel stands, least 1.5>"

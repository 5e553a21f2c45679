from __future__ import annotations

import pytest

from conpool._core.limit import Limit


def test_lends_as_many_tokens_as_there_are() -> None:
    capacity: Limit[str] = Limit(2)
    capacity.charge("a")
    assert capacity.has_free_slot
    capacity.charge("b")
    assert not capacity.has_free_slot


def test_a_full_limit_lends_no_more() -> None:
    """G1."""
    capacity: Limit[str] = Limit(1)
    capacity.charge("a")
    with pytest.raises(AssertionError, match="<Limit 1/1> cannot charge 'b'"):
        capacity.charge("b")
    assert set(capacity.borrowers) == {"a"}


def test_nobody_gets_a_second_token() -> None:
    capacity: Limit[str] = Limit(2)
    capacity.charge("a")
    with pytest.raises(AssertionError, match="cannot charge 'a'"):
        capacity.charge("a")


def test_repaying_twice_frees_one_token_only() -> None:
    """G11."""
    capacity: Limit[str] = Limit(2)
    capacity.charge("a")
    capacity.charge("b")
    capacity.repay("a")
    capacity.repay("a")
    assert set(capacity.borrowers) == {"b"}
    capacity.charge("c")
    assert not capacity.has_free_slot


def test_lowering_the_limit_takes_nothing_away_and_lends_nothing_until_enough_is_repaid() -> None:
    capacity: Limit[str] = Limit(3)
    for name in "abc":
        capacity.charge(name)
    capacity.total = 2
    assert set(capacity.borrowers) == set("abc")
    capacity.repay("a")
    assert not capacity.has_free_slot
    capacity.repay("b")
    assert capacity.has_free_slot


def test_names_its_numbers() -> None:
    capacity: Limit[str] = Limit(3)
    capacity.charge("a")
    assert repr(capacity) == "<Limit 1/3>"

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest

from conpool._dial.address import MOST_TRIED, Address, interleave, read_address, read_literal, spell
from conpool._errors.connect import MAX_ATTEMPTS
from tests._net import v4, v6


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", v4("192.0.2.1")),
        ("::1", v6("::1")),
        ("2001:DB8:0::1", v6("2001:db8::1")),
    ],
)
def test_an_ip_address_is_read_in_the_spelling_of_getpeername(host: str, address: Address) -> None:
    assert read_literal(host) == address


@pytest.mark.parametrize("host", ["example.org", "localhost", "1.2.3.4.example", "a" * 63])
def test_a_name_is_no_ip_address(host: str) -> None:
    assert read_literal(host) is None


def test_a_zone_is_kept_as_its_number() -> None:
    index = socket.if_nametoindex("lo")
    assert read_literal("fe80::1%lo") == Address(socket.AF_INET6, "fe80::1", scope_id=index)


def test_f009_an_unknown_zone_is_an_error_and_not_a_name() -> None:
    with pytest.raises(socket.gaierror):
        read_literal("fe80::1%nosuch")


def test_an_ip_address_of_another_family_is_an_error() -> None:
    with pytest.raises(socket.gaierror):
        read_literal("::1", socket.AF_INET)


@pytest.mark.parametrize(
    ("family", "sockaddr"),
    [
        (socket.AF_INET6, (10, b"\0" * 16)),  # a Python built without IPv6
        (socket.AF_INET, ("not an address", 80)),
        (socket.AF_UNIX, ("/run/socket", 0)),
        (socket.AF_INET, (b"192.0.2.1", 80)),
    ],
)
def test_what_is_no_ip_address_is_passed_over(family: int, sockaddr: tuple[object, ...]) -> None:
    assert read_address(family, sockaddr) is None


def test_a_short_ipv6_address_has_no_zone() -> None:
    assert read_address(socket.AF_INET6, ("2001:DB8::0", 0)) == v6("2001:db8::")


def test_the_port_is_the_one_asked_for_unless_the_resolver_said_another() -> None:
    assert v4("192.0.2.1").at(80) == ("192.0.2.1", 80)
    assert v4("192.0.2.1")._replace(port=8080).at(80) == ("192.0.2.1", 8080)
    assert Address(socket.AF_INET6, "fe80::1", scope_id=3).at(80) == ("fe80::1", 80, 0, 3)


# ── the order of attempts ───────────────────────────────────────────────────────

A4, B4, C4 = v4("192.0.2.1"), v4("192.0.2.2"), v4("192.0.2.3")
A6, B6, C6 = v6("2001:db8::1"), v6("2001:db8::2"), v6("2001:db8::3")


def test_the_families_take_turns() -> None:
    assert interleave([A6, B6, C6, A4, B4]) == [A6, A4, B6, B4, C6]
    assert interleave([A4, B4, A6]) == [A4, A6, B4]


def test_one_family_keeps_its_order() -> None:
    assert interleave([A4, C4, B4]) == [A4, C4, B4]


def test_the_last_winner_comes_first() -> None:
    assert interleave([A6, B6, A4, B4], first=B4) == [B4, A6, A4, B6]


def test_a_winner_that_is_no_longer_there_is_forgotten() -> None:
    assert interleave([A6, A4], first=B4) == [A6, A4]


def test_an_address_that_comes_twice_is_tried_once() -> None:
    assert interleave([A4, A4, A6, A4]) == [A4, A6]


def many(count: int) -> list[Address]:
    return [v4(f"192.0.{n >> 8}.{n & 255}") for n in range(count)]


def test_f147_one_dial_tries_a_few_addresses_of_each_family() -> None:
    sixes = [v6(f"2001:db8::{n:x}") for n in range(1, 100)]
    ordered = interleave([*many(100), *sixes])
    assert ordered[:4] == [many(1)[0], sixes[0], many(2)[1], sixes[1]]
    assert len(ordered) == 2 * MOST_TRIED == MAX_ATTEMPTS
    assert interleave(many(100)) == many(MOST_TRIED)


def test_f147_the_last_winner_is_tried_wherever_it_stands() -> None:
    *others, last = many(100)
    assert interleave([*others, last], last) == [last, *others[: MOST_TRIED - 1]]


def test_f147_an_address_costs_the_same_among_many() -> None:
    def steps(count: int) -> int:
        counted = 0

        def count_one(*_: object) -> Any:
            nonlocal counted
            counted += 1
            return count_one

        addresses = many(count)
        before = sys.gettrace()
        sys.settrace(count_one)
        try:
            interleave(addresses, addresses[-1])
        finally:
            sys.settrace(before)
        return counted

    assert steps(10_000) < 11 * steps(1_000)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("db.example", None),
        ("", None),
        ("192.0.2.1\0", None),
        (5, None),
        (None, None),
    ],
)
def test_an_address_is_spelled_as_getpeername_spells_it(text: object, spelled: str | None) -> None:
    assert spell(text) == spelled

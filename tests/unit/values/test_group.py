from __future__ import annotations

import enum
from typing import Any

import pytest

from conpool._values.config_error import ConfigError
from conpool._values.endpoint import Endpoint, UnixEndpoint
from conpool._values.group import EndpointGroup

A, B, C, D = (Endpoint(f"{name}.example", 1) for name in "abcd")


def test_a_group_takes_its_members_from_any_iterable() -> None:
    group = EndpointGroup(endpoint for endpoint in (A, UnixEndpoint("/b")))
    assert group.endpoints == (A, UnixEndpoint("/b"))
    assert group.policy == "round_robin"


def test_equal_groups_are_one_group() -> None:
    assert len({EndpointGroup([A, B]), EndpointGroup((A, B), policy="round_robin")}) == 1


def test_the_order_of_the_members_counts() -> None:
    assert EndpointGroup([A, B]) != EndpointGroup([B, A])


@pytest.mark.parametrize("members", [[], ()], ids=repr)
def test_a_group_needs_a_member(members: Any) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        EndpointGroup(members)


def test_a_member_appears_once() -> None:
    with pytest.raises(ConfigError, match=r"a\.example:1 is in the group twice"):
        EndpointGroup([A, B, Endpoint("a.example", 1)])


@pytest.mark.parametrize("member", ["a.example", None, EndpointGroup([A])], ids=str)
def test_a_group_holds_endpoints_only(member: Any) -> None:
    with pytest.raises(ConfigError, match="endpoints only"):
        EndpointGroup([B, member])


@pytest.mark.parametrize("members", [A, None, 7], ids=repr)
def test_a_single_endpoint_is_no_group(members: Any) -> None:
    with pytest.raises(ConfigError, match="an iterable of endpoints"):
        EndpointGroup(members)


@pytest.mark.parametrize("policy", ["random", None, [], "ROUND_ROBIN"], ids=repr)
def test_an_unknown_policy_is_refused(policy: Any) -> None:
    with pytest.raises(ConfigError, match="round_robin, least_loaded, first_available"):
        EndpointGroup([A], policy=policy)


def test_a_policy_from_an_enum_becomes_plain_text() -> None:
    class Policy(enum.StrEnum):
        FIRST = "first_available"

    assert type(EndpointGroup([A], policy=Policy.FIRST).policy) is str  # type: ignore[arg-type]


def test_a_group_names_its_first_members_and_counts_the_others() -> None:
    assert str(EndpointGroup([A, B, C])) == (
        "[a.example:1, b.example:1, c.example:1] (round_robin)"
    )
    assert str(EndpointGroup([A, B, C, D], policy="least_loaded")) == (
        "[a.example:1, b.example:1, c.example:1 and 1 more] (least_loaded)"
    )


def test_no_text_of_a_group_shows_a_partition() -> None:
    """G9."""
    group = EndpointGroup([Endpoint("a.example", 1, partition="canary")])
    assert "canary" not in f"{group} {group!r}"
    assert repr(group) == (
        "EndpointGroup([Endpoint('a.example', 1, partition=<hidden>)], policy='round_robin')"
    )

"""Several servers that serve the same thing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast, final, get_args

from conpool._values.config_error import ConfigError, named, shown
from conpool._values.endpoint import AnyEndpoint, Endpoint, UnixEndpoint
from conpool._values.value import Value

Policy: TypeAlias = Literal["round_robin", "least_loaded", "first_available"]

_POLICIES: Final[tuple[Policy, ...]] = get_args(Policy)
_NAMED_IN_STR: Final = 3


@final
@dataclass(frozen=True, init=False, repr=False, eq=False)
class EndpointGroup(Value):
    """Several servers that serve the same thing; a pool lends from one of those that are up.

    A pool takes a group wherever it takes an endpoint. Equal groups are one group: they share the
    turn of `round_robin`. The order of the members counts, and a group cannot hold another.

    >>> from conpool import Endpoint, EndpointGroup
    >>> replicas = [Endpoint("db1.example", 5432), Endpoint("db2.example", 5432)]
    >>> group = EndpointGroup(replicas, policy="least_loaded")
    >>> print(group)
    [db1.example:5432, db2.example:5432] (least_loaded)

    Args:
        endpoints: The members, at least one, each once.
        policy: Which member lends: each in turn, the one with the most free slots, or the first
            one that is up.

    Raises:
        ConfigError: There is no member; a member is there twice or is no endpoint; the policy is
            unknown.
    """

    __slots__ = ("endpoints", "policy")

    endpoints: tuple[AnyEndpoint, ...]
    policy: Policy

    def __init__(self, endpoints: Iterable[AnyEndpoint], *, policy: Policy = "round_robin") -> None:
        self._seal(endpoints=_check_members(endpoints), policy=_check_policy(policy))

    def __str__(self) -> str:
        named = ", ".join(str(member) for member in self.endpoints[:_NAMED_IN_STR])
        others = len(self.endpoints) - _NAMED_IN_STR
        return f"[{named}{f' and {others} more' if others > 0 else ''}] ({self.policy})"

    def __repr__(self) -> str:
        return f"EndpointGroup({list(self.endpoints)!r}, policy={self.policy!r})"


Target: TypeAlias = Endpoint | UnixEndpoint | EndpointGroup


def _check_members(endpoints: object) -> tuple[AnyEndpoint, ...]:
    if not isinstance(endpoints, Iterable):
        kind = type(endpoints).__name__
        raise ConfigError(f"endpoints must be an iterable of endpoints, not {kind}")
    members: dict[AnyEndpoint, None] = {}
    for member in cast("Iterable[object]", endpoints):
        if not isinstance(member, Endpoint | UnixEndpoint):
            # Nested groups would need a meaning for a policy inside a policy.
            raise ConfigError(f"a group holds endpoints only, not {type(member).__name__}")
        if member in members:
            raise ConfigError(f"{member} is in the group twice")
        members[member] = None
    if not members:
        raise ConfigError("a group needs at least one endpoint")
    return tuple(members)


def _check_policy(policy: object) -> Policy:
    for known in _POLICIES:
        if policy == known:
            return known
    raise ConfigError(f"policy must be one of {', '.join(_POLICIES)}, not {shown(policy)}")


def valid_endpoint(target: Target) -> AnyEndpoint:
    """Return `target` if it is one endpoint.

    Raises:
        TypeError: It is none, or a group, where only one endpoint makes sense.
    """
    if isinstance(target, (Endpoint, UnixEndpoint)):
        return target
    stranger = cast("object", target)
    hint = ""
    if isinstance(stranger, str):
        hint = " (for a URL write Endpoint.from_url(url))"
    elif type(stranger) in {tuple, list}:
        hint = " (write Endpoint(host, port), or EndpointGroup for several)"
    raise TypeError(f"not an Endpoint or UnixEndpoint but {named(stranger)}{hint}")


def members_of(target: Target) -> tuple[AnyEndpoint, ...]:
    """Return the members of a group, or the one endpoint.

    Raises:
        TypeError: It is neither.
    """
    return target.endpoints if isinstance(target, EndpointGroup) else (valid_endpoint(target),)

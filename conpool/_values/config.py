"""How a pool behaves: limits, times and the circuit breaker, as values.

Each option stands here once, with its default, its rule and its documentation.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, final

from conpool._values.config_error import ConfigError, named, shown
from conpool._values.endpoint import AnyEndpoint, Endpoint, UnixEndpoint
from conpool._values.option import (
    SHARE,
    count,
    instance_or_none,
    option,
    options_text,
    rules_of,
    seconds,
    validate_fields,
)
from conpool._values.validation import valid_instance, valid_mapping

SHORTEST: Final = 0.001
"""The least for a time after which the pool does something again, in seconds.

With less it would be busy with nothing else: a connection would be too old to be lent as soon as it
is open, and be dialled again, and so on.
"""


@final
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CircuitBreaker:
    """When to stop dialling a server that keeps failing, so that callers learn it at once.

    >>> from conpool import CircuitBreaker, PoolConfig
    >>> breaker = CircuitBreaker(failure_threshold=3, reset_timeout=10)
    >>> PoolConfig(circuit_breaker=breaker).circuit_breaker.reset_timeout
    10.0

    Raises:
        ConfigError: A count is not an int of at least 1, or `reset_timeout` is not a number of 0
            or more seconds.
    """

    failure_threshold: int = option(5, count(1))
    """Failures in a row after which the circuit opens."""
    reset_timeout: float = option(30.0, seconds())
    """Seconds for which an open circuit allows no dial; `math.inf`: until something closes it."""
    half_open_max: int = option(1, count(1))
    """Most dials at the same time that then try the server."""

    def __post_init__(self) -> None:
        validate_fields(self)

    def __repr__(self) -> str:
        return options_text(self)


@final
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PoolConfig:
    """Limits and times of a pool, or of one endpoint: checked when built, never changed.

    All durations are float seconds and `math.inf` means "no limit"; counts are ints and `None`
    means "no limit". Configurations compare by value and are hashable. `repr` shows the fields
    that differ from their defaults.

    >>> from conpool import PoolConfig
    >>> config = PoolConfig(max_connections_per_endpoint=4, acquire_timeout=2)
    >>> config.replace(max_connections=100)
    PoolConfig(max_connections_per_endpoint=4, max_connections=100, acquire_timeout=2.0)
    >>> PoolConfig.from_env(environ={"CONPOOL_MAX_IDLE_TIME": "inf"}).max_idle_time
    inf

    Raises:
        ConfigError: A field is of the wrong type or out of range, or `min_idle_per_endpoint`
            cannot be reached or kept. The message names the field, the value and what is allowed.
    """

    max_connections_per_endpoint: int = option(10, count(1))
    """Most connections of one endpoint; dials and closes count too."""
    max_connections: int | None = option(None, count(1, optional=True), pool_wide=True)
    """Most connections of the whole pool."""
    max_connecting_per_endpoint: int | None = option(None, count(1, optional=True))
    """Most dials of one endpoint at the same time."""
    min_idle_per_endpoint: int = option(0, count(0))
    """Idle connections that the pool keeps warm for an endpoint in use, unless dials fail."""
    max_idle_per_endpoint: int | None = option(None, count(0, optional=True))
    """Most idle connections of one endpoint: the pool closes one that is given back beyond it."""
    max_waiting_per_endpoint: int | None = option(None, count(0, optional=True))
    """Most tasks that wait for one endpoint; the next one gets `QueueFull`."""
    max_idle_time: float = option(60.0, seconds())
    """Seconds after which an idle connection is closed; 0 keeps none."""
    max_connection_lifetime: float = option(300.0, seconds(minimum=SHORTEST))
    """Seconds after which a connection is not lent again; at least 0.001."""
    lifetime_jitter: float = option(0.1, SHARE)
    """Up to this fraction of the lifetime is subtracted at random."""
    max_connection_uses: int | None = option(None, count(1, optional=True))
    """Most leases per connection; then it is closed."""
    acquire_timeout: float = option(30.0, seconds())
    """Seconds for queueing, dialling and checking together; 0 lends only what needs no wait."""
    connect_timeout: float = option(10.0, seconds(positive=True))
    """Seconds for one dial, a driver's `open` included; above 0."""
    outage_grace: float = option(1.0, seconds())
    """Seconds from an endpoint's first failed dial for which those who queue for it wait on.

    Before that, a failed dial fails nobody but the caller for whom it began. After that, the next
    one fails all who waited when it began; it begins within 1.5 seconds. 0 tells all at once;
    `math.inf` never tells the others. While a connection of the endpoint is lent, checked or
    reset, or another dial is under way, nobody is told but who wants a `fresh` connection.
    """
    health_check_timeout: float = option(5.0, seconds(positive=True))
    """Seconds for a check or a reset; above 0. A check takes them also if its caller gives up."""
    health_check_after: float = option(0.0, seconds())
    """A connection used or checked fewer seconds ago than this is lent without a check."""
    health_check_interval: float = option(math.inf, seconds(minimum=SHORTEST))
    """Seconds without use or check after which the background checks an idle connection; at least
    0.001. It looks every `reap_interval` seconds."""
    close_timeout: float = option(1.0, seconds())
    """Seconds for a graceful close, or for a driver's `cancel`; 0 closes by force."""
    shutdown_grace: float = option(10.0, seconds(), pool_wide=True)
    """Seconds that the pool gives leases to end when it closes."""
    reap_interval: float = option(5.0, seconds(minimum=SHORTEST), pool_wide=True)
    """Seconds between two sweeps; at least 0.001."""
    circuit_breaker: CircuitBreaker | None = option(None, instance_or_none(CircuitBreaker))
    """When to stop dialling a failing server; None never stops."""
    queue_target_delay: float | None = option(None, seconds(positive=True, optional=True))
    """The pool sheds load if tasks wait for more seconds than this; above 0. None never sheds."""

    def __post_init__(self) -> None:
        validate_fields(self)
        self._check_min_idle()

    def _check_min_idle(self) -> None:
        wanted = self.min_idle_per_endpoint
        limits = ("max_connections_per_endpoint", "max_connections", "max_idle_per_endpoint")
        for name in limits:
            limit: int | None = getattr(self, name)
            if limit is not None and wanted > limit:
                raise ConfigError(
                    f"min_idle_per_endpoint must be at most {name} ({limit}), not {wanted}"
                )
        if wanted and self.max_idle_time < SHORTEST:
            # The pool would close each warmed connection at once, dial again, and so on for ever.
            raise ConfigError(
                f"min_idle_per_endpoint must be 0 where max_idle_time is below {SHORTEST},"
                f" not {wanted}"
            )

    def replace(self, **changes: Any) -> PoolConfig:
        """Return a copy with some fields changed.

        Args:
            **changes: New values by field name.

        Raises:
            ConfigError: A name is not a field, or the result is not a valid configuration.
        """
        known = {field.name for field in fields(self)}
        for name in changes:
            if name not in known:
                raise ConfigError(f"PoolConfig has no field {shown(name)}")
        return replace(self, **changes)

    @classmethod
    def from_env(
        cls, prefix: str = "CONPOOL_", environ: Mapping[str, str] = os.environ
    ) -> PoolConfig:
        """Read fields from environment variables; those without a variable keep their default.

        `CONPOOL_ACQUIRE_TIMEOUT=2.5` sets `acquire_timeout`. `inf` or `none` means "no limit" for
        a field that can be without one. There is no variable for `circuit_breaker`, which is more
        than one number: set it in code with `replace`.

        Args:
            prefix: The names of the variables start with it; not empty.
            environ: The variables.

        Raises:
            ConfigError: A value is wrong, or a variable with the prefix names no field; the
                message names the variable.
        """
        valid_instance("prefix", prefix, str)
        valid_mapping("environ", environ)
        if not prefix:
            raise ConfigError("prefix must not be empty: every variable would be taken for a field")
        settings = {prefix + name.upper(): (name, rule) for name, rule in rules_of(cls).items()}
        found: dict[str, Any] = {}
        for variable, text in environ.items():
            if not variable.startswith(prefix):
                continue
            name, rule = settings.get(variable, ("", None))
            if rule is None or rule.number is None:
                # The message leaves the value out, because it may be another program's secret.
                raise ConfigError(f"{variable} is not a setting of the pool")
            written = valid_instance(variable, text, str).strip()
            found[name] = rule.check(variable, rule.parse(written))
        return cls(**found)

    def __repr__(self) -> str:
        return options_text(self)


POOL_WIDE_FIELDS: Final = frozenset(
    field.name for field in fields(PoolConfig) if field.metadata["pool_wide"]
)
"""The fields that no endpoint can have for itself."""


def checked_configs(config: object, overrides: object) -> dict[AnyEndpoint, PoolConfig]:
    """Return a copy of `overrides`; refuse what is no configuration."""
    usual = valid_instance("config", config, PoolConfig)
    own_configs: dict[AnyEndpoint, PoolConfig] = {}
    for endpoint, its_own in valid_mapping("overrides", overrides).items():
        if not isinstance(endpoint, Endpoint | UnixEndpoint):
            raise ConfigError(f"overrides are for single endpoints, not for {named(endpoint)}")
        own = own_configs[endpoint] = valid_instance("each of overrides", its_own, PoolConfig)
        for field in sorted(POOL_WIDE_FIELDS):
            if getattr(own, field) != getattr(usual, field):
                raise ConfigError(f"{field} is the whole pool's: {endpoint} cannot have its own")
    return own_configs

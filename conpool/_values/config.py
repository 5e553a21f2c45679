"""How a pool behaves: limits, times and the circuit breaker, as values.

Every field has one rule in `_RULES`, which both the constructor and the environment go through.
What is refused is what no pool could work with; what is merely unusual is the caller's affair.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, final

from conpool._values.config_error import ConfigError, shown
from conpool._values.validation import valid_count, valid_seconds, valid_share

POOL_WIDE_FIELDS: Final = frozenset({"max_connections", "shutdown_grace", "reap_interval"})
"""Fields that speak of the pool as a whole, so that no endpoint can have its own."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreaker:
    """When to stop dialling a server that keeps failing, so that callers learn it at once.

    After `failure_threshold` failures in a row the circuit opens for `reset_timeout` seconds
    (`math.inf`: until something closes it); then at most `half_open_max` dials try the server.

    >>> from conpool import CircuitBreaker, PoolConfig
    >>> breaker = CircuitBreaker(failure_threshold=3, reset_timeout=10)
    >>> PoolConfig(circuit_breaker=breaker).circuit_breaker.reset_timeout
    10.0

    Raises:
        ConfigError: A count is not an int of at least 1, or `reset_timeout` not a number of 0 or
            more seconds.
    """

    failure_threshold: int = 5
    reset_timeout: float = 30.0
    half_open_max: int = 1

    def __post_init__(self) -> None:
        _settle(self, _BREAKER_RULES)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """Limits and times of a pool, or of one endpoint: checked when built, never changed.

    All durations are float seconds and `math.inf` means "no limit"; counts are ints and `None`
    means "no limit". Equal by value, and hashable.

    >>> from conpool import PoolConfig
    >>> config = PoolConfig(max_connections_per_endpoint=4, acquire_timeout=2)
    >>> config.replace(max_connections=100).acquire_timeout
    2.0
    >>> PoolConfig.from_env(environ={"CONPOOL_MAX_IDLE_TIME": "inf"}).max_idle_time
    inf

    Attributes:
        max_connections_per_endpoint: Connections of one endpoint, dials and closes included.
        max_connections: Connections of the whole pool.
        max_connecting_per_endpoint: Dials of one endpoint at the same time.
        min_idle_per_endpoint: Idle connections kept warm for an endpoint in use.
        max_waiting_per_endpoint: Waiters of one endpoint before `QueueFull`.
        max_idle_time: Seconds after which an idle connection is closed; 0 keeps none.
        max_connection_lifetime: Seconds after which a connection is not lent again; above 0.
        lifetime_jitter: Share of the lifetime, 0 to 1, by which chance may shorten it.
        max_connection_uses: Leases of one connection.
        acquire_timeout: Seconds for queueing, dialling and checking together; 0 lends only what
            is idle.
        connect_timeout: Seconds for one dial; above 0.
        health_check_timeout: Seconds for a check or a reset; above 0.
        health_check_after: Seconds of idleness below which no check is made before lending.
        health_check_interval: Seconds between background checks of an idle connection; above 0.
        close_timeout: Seconds for a graceful close; 0 closes by force.
        shutdown_grace: Seconds that leases have to end when the pool closes.
        reap_interval: Seconds between two sweeps; above 0.
        circuit_breaker: When to stop dialling a failing server; None never stops.
        queue_target_delay: Seconds of queueing from which on load is shed; above 0, None never.

    Raises:
        ConfigError: A field is of the wrong type or out of range, or `min_idle_per_endpoint`
            cannot be reached or kept. The message names the field, the value and what is allowed.
    """

    max_connections_per_endpoint: int = 10
    max_connections: int | None = None
    max_connecting_per_endpoint: int | None = None
    min_idle_per_endpoint: int = 0
    max_waiting_per_endpoint: int | None = None
    max_idle_time: float = 60.0
    max_connection_lifetime: float = 300.0
    lifetime_jitter: float = 0.1
    max_connection_uses: int | None = None
    acquire_timeout: float = 30.0
    connect_timeout: float = 10.0
    health_check_timeout: float = 5.0
    health_check_after: float = 0.0
    health_check_interval: float = math.inf
    close_timeout: float = 1.0
    shutdown_grace: float = 10.0
    reap_interval: float = 5.0
    circuit_breaker: CircuitBreaker | None = None
    queue_target_delay: float | None = None

    def __post_init__(self) -> None:
        _settle(self, _RULES)
        _check_breaker(self.circuit_breaker)
        self._check_min_idle()

    def _check_min_idle(self) -> None:
        wanted = self.min_idle_per_endpoint
        for name in ("max_connections_per_endpoint", "max_connections"):
            limit: int | None = getattr(self, name)
            if limit is not None and wanted > limit:
                raise ConfigError(
                    f"min_idle_per_endpoint must be at most {name} ({limit}), not {wanted}"
                )
        if wanted and not self.max_idle_time:
            # Each warmed connection would be closed at once, and dialled again for ever.
            raise ConfigError(
                f"min_idle_per_endpoint must be 0 where max_idle_time is 0, not {wanted}"
            )

    def replace(self, **changes: Any) -> PoolConfig:
        """Return a copy with some fields changed.

        Args:
            **changes: New values by field name.

        Raises:
            ConfigError: A name is not a field, or the outcome is no valid configuration.
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
        """Read the fields that are set from environment variables.

        `CONPOOL_ACQUIRE_TIMEOUT=2.5` sets `acquire_timeout`. `inf` or `none` says "no limit"
        where a field has one to lift. There is no variable for `circuit_breaker`: it is not one
        number, so it is set in code with `replace`.

        Args:
            prefix: What the names of the variables start with; not empty.
            environ: Where to look.

        Raises:
            ConfigError: A value is wrong, or a variable with the prefix names no field; the
                message names the variable.
        """
        if not prefix:
            raise ConfigError("prefix must not be empty: every variable would be taken for a field")
        found: dict[str, Any] = {}
        for variable, text in environ.items():
            if not variable.startswith(prefix):
                continue
            name = variable.removeprefix(prefix).lower()
            rule = _RULES.get(name)
            if rule is None or variable != prefix + name.upper():
                # The value is not shown: nobody knows what it was meant for.
                raise ConfigError(f"{variable} is not a setting of the pool")
            found[name] = rule.check(variable, rule.parse(text.strip()))
        return cls(**found)


# ── rules ───────────────────────────────────────────────────────────────────────


_UNLIMITED: Final = frozenset({"inf", "none"})


@dataclass(frozen=True, slots=True)
class _Count:
    minimum: int
    optional: bool = False

    def check(self, name: str, value: object) -> int | None:
        if value is None and self.optional:
            return None
        return valid_count(name, value, minimum=self.minimum)

    def parse(self, text: str) -> object:
        """Return what the text says, or the text itself, for `check` to complain of."""
        if self.optional and text.lower() in _UNLIMITED:
            return None
        try:
            return int(text)
        except ValueError:
            return text


@dataclass(frozen=True, slots=True)
class _Seconds:
    positive: bool = False
    optional: bool = False

    def check(self, name: str, value: object) -> float | None:
        if value is None and self.optional:
            return None
        return valid_seconds(name, value, positive=self.positive)

    def parse(self, text: str) -> object:
        if text.lower() == "none":
            return None if self.optional else math.inf
        return _number(text)


@dataclass(frozen=True, slots=True)
class _Share:
    def check(self, name: str, value: object) -> float:
        return valid_share(name, value)

    def parse(self, text: str) -> object:
        return _number(text)


def _number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


_Rule = _Count | _Seconds | _Share

_RULES: Final[Mapping[str, _Rule]] = {
    "max_connections_per_endpoint": _Count(1),
    "max_connections": _Count(1, optional=True),
    "max_connecting_per_endpoint": _Count(1, optional=True),
    "min_idle_per_endpoint": _Count(0),
    "max_waiting_per_endpoint": _Count(0, optional=True),
    "max_idle_time": _Seconds(),
    "max_connection_lifetime": _Seconds(positive=True),
    "lifetime_jitter": _Share(),
    "max_connection_uses": _Count(1, optional=True),
    "acquire_timeout": _Seconds(),
    "connect_timeout": _Seconds(positive=True),
    "health_check_timeout": _Seconds(positive=True),
    "health_check_after": _Seconds(),
    "health_check_interval": _Seconds(positive=True),
    "close_timeout": _Seconds(),
    "shutdown_grace": _Seconds(),
    "reap_interval": _Seconds(positive=True),
    "queue_target_delay": _Seconds(positive=True, optional=True),
}

_BREAKER_RULES: Final[Mapping[str, _Rule]] = {
    "failure_threshold": _Count(1),
    "reset_timeout": _Seconds(),
    "half_open_max": _Count(1),
}


def _check_breaker(value: object) -> None:
    if value is not None and not isinstance(value, CircuitBreaker):
        raise ConfigError(f"circuit_breaker must be a CircuitBreaker or None, not {shown(value)}")


def _settle(value: object, rules: Mapping[str, _Rule]) -> None:
    """Check the fields of a frozen dataclass and store them in their proper type."""
    for name, rule in rules.items():
        object.__setattr__(value, name, rule.check(name, getattr(value, name)))

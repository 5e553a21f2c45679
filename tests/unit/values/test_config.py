from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import pickle
from itertools import pairwise
from typing import Any

import pytest

from conpool._values.config import POOL_WIDE_FIELDS, CircuitBreaker, PoolConfig
from conpool._values.config_error import ConfigError
from conpool._values.option import rules_of

NAMES = [field.name for field in dataclasses.fields(PoolConfig)]
COUNTS = [name for name, rule in rules_of(PoolConfig).items() if rule.number is int]
OPTIONAL_COUNTS = [name for name in COUNTS if getattr(PoolConfig(), name) is None]
TIMES = [name for name in NAMES if name not in {*COUNTS, "lifetime_jitter", "circuit_breaker"}]
# With 0 here, nothing could ever be dialled, checked or lent, or the pool would spin.
FLOORED_TIMES = ["max_connection_lifetime", "health_check_interval", "reap_interval"]
POSITIVE_TIMES = [
    "max_connection_lifetime",
    "connect_timeout",
    "health_check_timeout",
    "health_check_interval",
    "reap_interval",
    "queue_target_delay",
]


def config(**fields: Any) -> PoolConfig:
    return PoolConfig(**fields)


@pytest.mark.parametrize("kind", [PoolConfig, CircuitBreaker])
def test_every_field_has_a_rule_that_its_default_keeps(kind: type[Any]) -> None:
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    rules = rules_of(kind)
    assert list(rules) == list(fields)
    assert {name: rule.check(name, fields[name]) for name, rule in rules.items()} == fields


@pytest.mark.parametrize("kind", [PoolConfig, CircuitBreaker])
def test_every_field_is_documented_beside_it(kind: type[Any]) -> None:
    (body,) = (
        node.body
        for node in ast.parse(inspect.getsource(inspect.getmodule(kind) or kind)).body
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    )
    documented = {
        ast.unparse(field.target)
        for field, doc in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr)
    }
    assert documented == {field.name for field in dataclasses.fields(kind)}


def test_to_a_signature_an_option_is_an_ordinary_default() -> None:
    parameters = inspect.signature(PoolConfig).parameters.values()
    assert [parameter.name for parameter in parameters] == NAMES
    assert all(
        parameter.default == getattr(PoolConfig(), parameter.name) for parameter in parameters
    )


def test_what_concerns_the_whole_pool_is_pool_wide() -> None:
    assert {"max_connections", "shutdown_grace", "reap_interval"} == POOL_WIDE_FIELDS


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [-1, 1.5, True, "4", math.inf], ids="F011-{!r}".format)
def test_a_count_that_is_no_count_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} must be an int of at least \d, not "):
        config(**{name: value})


@pytest.mark.parametrize("name", COUNTS)
def test_zero_is_a_count_only_where_a_pool_can_work_with_it(name: str) -> None:
    """F011."""
    if name.startswith(("min_idle", "max_idle", "max_waiting")):
        assert getattr(config(**{name: 0}), name) == 0
    else:
        with pytest.raises(ConfigError, match=f"^{name} must be an int of at least 1, not 0"):
            config(**{name: 0})


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_may_be_as_large_as_you_like(name: str) -> None:
    """F011."""
    fields = {"max_connections_per_endpoint": 10**9, name: 10**9}
    assert getattr(config(**fields), name) == 10**9


@pytest.mark.parametrize("name", COUNTS)
def test_none_lifts_a_limit_only_where_the_default_is_none(name: str) -> None:
    if name in OPTIONAL_COUNTS:
        assert getattr(config(**{name: None}), name) is None
    else:
        with pytest.raises(ConfigError, match=name):
            config(**{name: None})


@pytest.mark.parametrize("limit", ["max_connections_per_endpoint", "max_connections"])
def test_more_idle_connections_than_the_limit_are_refused(limit: str) -> None:
    """F012."""
    with pytest.raises(ConfigError, match=rf"^min_idle_per_endpoint .* {limit} \(4\), not 5"):
        config(**{limit: 4, "min_idle_per_endpoint": 5})
    assert config(**{limit: 5, "min_idle_per_endpoint": 5}).min_idle_per_endpoint == 5


def test_connections_cannot_be_kept_warm_where_none_may_be_idle() -> None:
    with pytest.raises(ConfigError, match="where max_idle_time is below 0.001"):
        config(min_idle_per_endpoint=1, max_idle_time=0)


def test_the_pool_may_be_smaller_than_the_limit_of_an_endpoint() -> None:
    assert config(max_connections=1).max_connections == 1


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", [math.nan, -1, "5", True], ids="F013-{!r}".format)
def test_a_time_that_cannot_pass_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} must be .* seconds .*, not "):
        config(**{name: value})


@pytest.mark.parametrize("name", TIMES)
def test_a_time_may_be_infinite(name: str) -> None:
    """F013."""
    assert getattr(config(**{name: math.inf}), name) == math.inf


@pytest.mark.parametrize("name", TIMES)
def test_zero_is_a_time_only_where_a_pool_can_work_with_it(name: str) -> None:
    """F014: acquire_timeout=0 is legal."""
    if name in POSITIVE_TIMES:
        least = "0.001 or more" if name in FLOORED_TIMES else "more than 0"
        with pytest.raises(ConfigError, match=rf"^{name} must be {least} seconds .*, not 0"):
            config(**{name: 0})
    else:
        assert getattr(config(**{name: 0}), name) == 0


@pytest.mark.parametrize("name", FLOORED_TIMES)
def test_f156_a_time_with_which_the_pool_would_only_be_busy_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} must be 0.001 or more seconds"):
        config(**{name: 1e-12})
    assert getattr(config(**{name: 0.001}), name) == 0.001


def test_f156_connections_that_would_be_idle_for_no_time_cannot_be_kept_warm() -> None:
    with pytest.raises(ConfigError, match="where max_idle_time is below 0.001"):
        config(min_idle_per_endpoint=1, max_idle_time=1e-12)


@pytest.mark.parametrize(
    ("prefix", "environ", "match"),
    [
        (5, {}, "prefix must be a str, not 5"),
        ("P_", None, "environ must be a mapping, not None"),
        ("P_", {"P_MAX_CONNECTIONS": 5}, "P_MAX_CONNECTIONS must be a str, not 5"),
    ],
)
def test_f137_what_is_no_environment_is_refused(prefix: Any, environ: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        PoolConfig.from_env(prefix, environ)


@pytest.mark.parametrize("name", TIMES)
def test_times_are_stored_as_floats(name: str) -> None:
    assert isinstance(getattr(config(**{name: 7}), name), float)


def test_the_jitter_is_a_share() -> None:
    assert config(lifetime_jitter=1).lifetime_jitter == 1.0
    with pytest.raises(ConfigError, match=r"^lifetime_jitter must be a number from 0 to 1, not 2"):
        config(lifetime_jitter=2)


@pytest.mark.parametrize("breaker", [True, 5, {"failure_threshold": 5}], ids=repr)
def test_a_circuit_breaker_is_a_circuit_breaker(breaker: object) -> None:
    with pytest.raises(ConfigError, match=r"^circuit_breaker must be a CircuitBreaker or None"):
        config(circuit_breaker=breaker)


@pytest.mark.parametrize(
    "fields",
    [
        {"failure_threshold": 0},
        {"failure_threshold": True},
        {"reset_timeout": -1},
        {"reset_timeout": math.nan},
        {"half_open_max": 0},
        {"half_open_max": 1.0},
    ],
    ids=str,
)
def test_a_circuit_breaker_that_could_not_work_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(fields))} must be"):
        CircuitBreaker(**fields)


def test_a_circuit_breaker_may_stay_open_for_good() -> None:
    assert CircuitBreaker(reset_timeout=math.inf).reset_timeout == math.inf


def test_configurations_are_equal_by_value_and_hashable() -> None:
    one = config(acquire_timeout=5, circuit_breaker=CircuitBreaker(half_open_max=2))
    other = config(acquire_timeout=5.0, circuit_breaker=CircuitBreaker(half_open_max=2))
    assert one == other
    assert len({one, other, PoolConfig()}) == 2
    assert pickle.loads(pickle.dumps(one)) == one


@pytest.mark.parametrize("name", NAMES)
def test_every_field_tells_configurations_apart(name: str) -> None:
    value = 3 if name in COUNTS else CircuitBreaker() if name == "circuit_breaker" else 0.5
    assert config(**{name: value}) != PoolConfig()


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (PoolConfig(), "PoolConfig()"),
        (
            PoolConfig(max_connections=7, acquire_timeout=2),
            "PoolConfig(max_connections=7, acquire_timeout=2.0)",
        ),
        (PoolConfig(max_idle_time=math.inf), "PoolConfig(max_idle_time=float('inf'))"),
        (
            PoolConfig(circuit_breaker=CircuitBreaker(reset_timeout=math.inf)),
            "PoolConfig(circuit_breaker=CircuitBreaker(reset_timeout=float('inf')))",
        ),
    ],
)
def test_repr_shows_what_differs_from_the_defaults(one: PoolConfig, text: str) -> None:
    assert repr(one) == text
    assert eval(text, {"PoolConfig": PoolConfig, "CircuitBreaker": CircuitBreaker}) == one


@pytest.mark.parametrize("name", NAMES)
def test_repr_makes_an_equal_configuration(name: str) -> None:
    value = 3 if name in COUNTS else CircuitBreaker() if name == "circuit_breaker" else 0.1 + 0.2
    one = config(**{name: value})
    names = {"PoolConfig": PoolConfig, "CircuitBreaker": CircuitBreaker}
    assert name in repr(one)
    assert eval(repr(one), names) == one


def test_a_configuration_cannot_be_changed() -> None:
    for name in NAMES:
        with pytest.raises(AttributeError):
            setattr(PoolConfig(), name, 1)


def test_replace_derives_another_and_checks_it() -> None:
    one = PoolConfig(acquire_timeout=2)
    other = one.replace(max_connections=5)
    assert (other.max_connections, other.acquire_timeout) == (5, 2.0)
    assert one.max_connections is None
    with pytest.raises(ConfigError, match="min_idle_per_endpoint"):
        one.replace(min_idle_per_endpoint=11)


def test_replace_refuses_what_is_no_field() -> None:
    with pytest.raises(ConfigError, match="no option 'max_conections': write max_connections"):
        PoolConfig().replace(max_conections=5)  # type: ignore[call-arg]


def test_an_environment_without_settings_gives_the_defaults() -> None:
    assert PoolConfig.from_env(environ={"PATH": "/bin"}) == PoolConfig()


def test_the_process_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONPOOL_MAX_CONNECTIONS", "7")
    assert PoolConfig.from_env().max_connections == 7


def test_settings_are_read_by_the_type_of_their_field() -> None:
    environ = {
        "DB_MAX_CONNECTIONS_PER_ENDPOINT": " 4 ",
        "DB_ACQUIRE_TIMEOUT": "2.5",
        "DB_LIFETIME_JITTER": "0.5",
        "DB_MIN_IDLE_PER_ENDPOINT": "0",
        "CONPOOL_NOT_MINE": "x",
    }
    assert PoolConfig.from_env("DB_", environ) == PoolConfig(
        max_connections_per_endpoint=4,
        acquire_timeout=2.5,
        lifetime_jitter=0.5,
        min_idle_per_endpoint=0,
    )


@pytest.mark.parametrize("word", ["none", "inf", "None", "INF"])
def test_both_words_for_no_limit_lift_any_limit(word: str) -> None:
    unlimited = PoolConfig.from_env(
        environ={"CONPOOL_MAX_CONNECTION_USES": word, "CONPOOL_ACQUIRE_TIMEOUT": word}
    )
    assert unlimited.max_connection_uses is None
    assert unlimited.acquire_timeout == math.inf


def test_the_queue_target_can_be_switched_off() -> None:
    environ = {"CONPOOL_QUEUE_TARGET_DELAY": "none"}
    assert PoolConfig.from_env(environ=environ).queue_target_delay is None


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("CONPOOL_MAX_CONNECTIONS_PER_ENDPOINT", "none"),
        ("CONPOOL_MAX_CONNECTIONS_PER_ENDPOINT", "0"),
        ("CONPOOL_MAX_CONNECTIONS", "1.5"),
        ("CONPOOL_MAX_CONNECTIONS", ""),
        ("CONPOOL_ACQUIRE_TIMEOUT", "5s"),
        ("CONPOOL_ACQUIRE_TIMEOUT", "nan"),
        ("CONPOOL_CONNECT_TIMEOUT", "0"),
        ("CONPOOL_LIFETIME_JITTER", "none"),
        ("CONPOOL_LIFETIME_JITTER", "2"),
    ],
)
def test_a_wrong_setting_is_refused_by_the_name_of_its_variable(variable: str, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{variable} must be .*, not "):
        PoolConfig.from_env(environ={variable: text})


@pytest.mark.parametrize(
    "variable",
    ["CONPOOL_MAX_CONECTIONS", "CONPOOL_CIRCUIT_BREAKER", "CONPOOL_", "CONPOOL_acquire_timeout"],
)
def test_an_unknown_setting_is_refused_by_name_and_its_value_not_shown(variable: str) -> None:
    """G9."""
    with pytest.raises(ConfigError, match=f"^{variable} is not a setting") as caught:
        PoolConfig.from_env(environ={variable: "canary"})
    assert "canary" not in str(caught.value)


def test_settings_are_checked_together() -> None:
    with pytest.raises(ConfigError, match="min_idle_per_endpoint"):
        PoolConfig.from_env(environ={"CONPOOL_MIN_IDLE_PER_ENDPOINT": "11"})


def test_an_empty_prefix_is_refused() -> None:
    with pytest.raises(ConfigError, match="prefix"):
        PoolConfig.from_env("")

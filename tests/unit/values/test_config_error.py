from __future__ import annotations

from conpool._values.config_error import ConfigError, PoolError, shown


def test_a_config_error_is_also_a_value_error() -> None:
    assert issubclass(ConfigError, PoolError)
    assert issubclass(ConfigError, ValueError)


def test_a_wrong_value_is_shown_cut_short() -> None:
    assert len(shown("x" * 1000)) < 50
    assert shown(10**5000).startswith(("a huge int", "<int instance with"))  # since 3.14

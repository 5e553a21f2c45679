"""What the environment says. Passwords are masked wherever settings are shown."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import conpool
from conpool.contrib.psycopg import PsycopgDriver

VARIABLES = {  # each is looked for under both names
    "POSTGRESQL_ADDON_HOST": "DB_HOST",
    "POSTGRESQL_ADDON_PORT": "DB_PORT",
    "POSTGRESQL_ADDON_DB": "DB_NAME",
    "POSTGRESQL_ADDON_USER": "DB_USER",
    "POSTGRESQL_ADDON_PASSWORD": "DB_PASSWORD",
    "POSTGRESQL_ADDON_CONNECTION_POOL": "DB_POOL_SIZE",
}
URLS = ("DATABASE_URL", "MARIADB_URL")
OTHERS = ("LOG_LEVEL", "BIND")
LEVELS = ("debug", "info", "warning", "error", "critical")


class ConfigurationError(Exception):
    """The service cannot start, or do what is asked, as it is configured."""


@dataclass(frozen=True)
class Settings:
    """All that can be configured. An endpoint shows no password."""

    postgres: conpool.AnyEndpoint
    mariadb: conpool.AnyEndpoint | None
    pool_size: int
    log_level: int
    bind: str

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read `DATABASE_URL` or the single variables, `MARIADB_URL`, `LOG_LEVEL` and `BIND`.

        Raises:
            ConfigurationError: A variable is missing or wrong. The text names it.
        """
        level = environ.get("LOG_LEVEL") or "info"
        if level.lower() not in LEVELS:
            raise ConfigurationError(f"LOG_LEVEL must be one of {', '.join(LEVELS)}")
        return cls(
            postgres=_read_postgres(environ),
            mariadb=_read_mariadb(environ),
            pool_size=_number(environ, "POSTGRESQL_ADDON_CONNECTION_POOL", 20),
            log_level=logging.getLevelNamesMapping()[level.upper()],
            bind=environ.get("BIND") or "127.0.0.1:8000",
        )


def masked(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that the service reads, with `***` for each secret."""
    names = (*URLS, *VARIABLES, *VARIABLES.values(), *OTHERS)
    return {name: _mask(name, environ[name]) for name in names if environ.get(name)}


def _mask(name: str, value: str) -> str:
    if name.endswith("PASSWORD"):
        return "***"
    if name not in URLS:
        return value
    try:
        endpoint = _parse(name, value)
    except ConfigurationError:
        return "*** (it cannot be read)"
    scheme = "postgresql" if name == "DATABASE_URL" else "mysql"
    return f"{scheme}://{endpoint}"  # an endpoint leaves out the password


def _read_postgres(environ: Mapping[str, str]) -> conpool.AnyEndpoint:
    if url := environ.get("DATABASE_URL"):
        return _parse("DATABASE_URL", url)
    parts: dict[str, Any] = {
        "host": _required(environ, "POSTGRESQL_ADDON_HOST"),
        "port": _number(environ, "POSTGRESQL_ADDON_PORT", 5432),
        "dbname": _required(environ, "POSTGRESQL_ADDON_DB"),
        "user": _required(environ, "POSTGRESQL_ADDON_USER"),
        "password": _either(environ, "POSTGRESQL_ADDON_PASSWORD"),
    }
    try:
        return PsycopgDriver.endpoint(**parts)
    except conpool.ConfigError as error:
        raise ConfigurationError(f"POSTGRESQL_ADDON_HOST and the like: {error}") from None


def _read_mariadb(environ: Mapping[str, str]) -> conpool.AnyEndpoint | None:
    url = environ.get("MARIADB_URL")
    return _parse("MARIADB_URL", url) if url else None


def _parse(name: str, url: str) -> conpool.AnyEndpoint:
    try:
        if name == "DATABASE_URL":
            return PsycopgDriver.endpoint(url)
        return conpool.Endpoint.from_url(url)
    except conpool.ConfigError as error:
        raise ConfigurationError(f"{name}: {error}") from None


def _either(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(name) or environ.get(VARIABLES[name]) or None


def _required(environ: Mapping[str, str], name: str) -> str:
    value = _either(environ, name)
    if value is None:
        raise ConfigurationError(f"set DATABASE_URL, or {name} (or {VARIABLES[name]})")
    return value


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    value = _either(environ, name) or str(default)
    if not (value.isascii() and value.isdecimal() and 0 < int(value) < 65536):
        raise ConfigurationError(f"{name} (or {VARIABLES[name]}) must be a number from 1 to 65535")
    return int(value)

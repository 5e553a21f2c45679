"""How `examples/service` reads its environment, and which kind an error is."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

pytest.importorskip("hypercorn", reason="hypercorn is not installed")
pytest.importorskip("psycopg", reason="psycopg is not installed")
pytest.importorskip("starlette", reason="Starlette is not installed")
pytest.importorskip("trio_mysql", reason="trio-mysql is not installed")

import psycopg
import trio
from service.errors import kind_of
from service.settings import ConfigurationError, Settings, masked

import conpool
from conpool.testing import MemoryConnector
from tests.support.examples import EXAMPLES

ADDON = {
    "POSTGRESQL_ADDON_HOST": "addon.example",
    "POSTGRESQL_ADDON_PORT": "5433",
    "POSTGRESQL_ADDON_DB": "shop",
    "POSTGRESQL_ADDON_USER": "app",
    "POSTGRESQL_ADDON_PASSWORD": "c4n4ry",
    "POSTGRESQL_ADDON_CONNECTION_POOL": "7",
}
PLAIN = {
    "DB_HOST": "plain.example",
    "DB_PORT": "5434",
    "DB_NAME": "other",
    "DB_USER": "me",
    "DB_PASSWORD": "hunter2",
    "DB_POOL_SIZE": "8",
}


@pytest.fixture(autouse=True)
def environ_of_libpq_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE"):
        monkeypatch.delenv(name, raising=False)


def read(environ: dict[str, str]) -> tuple[str, str | None, int]:
    settings = Settings.from_environ(environ)
    login = settings.postgres.login
    assert login is not None
    return str(settings.postgres), login.password, settings.pool_size


def test_url_comes_first() -> None:
    url = "postgres://app:pass%20word@url.example/shop"
    environ = {**PLAIN, **ADDON, "DATABASE_URL": url}
    assert read(environ) == ("app@url.example:5432/shop", "pass word", 7)


def test_addon_comes_before_plain_names() -> None:
    assert read({**PLAIN, **ADDON}) == ("app@addon.example:5433/shop", "c4n4ry", 7)


@pytest.mark.parametrize("missing", list(ADDON))
def test_each_addon_variable_falls_back_to_its_plain_name(missing: str) -> None:
    plain = dict(zip(ADDON, PLAIN.values(), strict=True))
    both = read({**ADDON, missing: plain[missing]})
    assert read({**PLAIN, **ADDON, missing: ""}) == both


def test_defaults() -> None:
    settings = Settings.from_environ({"DB_HOST": "h", "DB_NAME": "d", "DB_USER": "u"})
    assert str(settings.postgres) == "u@h:5432/d"
    assert (settings.pool_size, settings.log_level) == (20, logging.INFO)
    assert settings.mariadb is None


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, "DATABASE_URL, or POSTGRESQL_ADDON_HOST"),
        ({"DB_HOST": "h"}, "DB_NAME"),
        ({"DB_HOST": "h", "DB_NAME": "d"}, "DB_USER"),
        ({**PLAIN, "DB_PORT": "hunter2"}, "DB_PORT"),
        ({**PLAIN, "DB_PORT": "70000"}, "DB_PORT"),
        ({**PLAIN, "DB_POOL_SIZE": "0"}, "DB_POOL_SIZE"),
        ({**PLAIN, "DB_HOST": "a b"}, "POSTGRESQL_ADDON_HOST"),
        ({"DATABASE_URL": "postgres://u:hunter2@h/d?hunter2=1"}, "DATABASE_URL"),
        ({**PLAIN, "MARIADB_URL": "mysql://root:hunter2@"}, "MARIADB_URL"),
        ({**PLAIN, "LOG_LEVEL": "loud"}, "LOG_LEVEL must be one of debug"),
    ],
)
def test_error_names_the_variable_and_no_secret(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        Settings.from_environ(environ)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str(masked(environ)) or environ.get("DB_PORT") == "hunter2"


def test_passwords_are_masked() -> None:
    environ = {
        **ADDON,
        **PLAIN,
        "DATABASE_URL": "postgresql://app:c4n4ry@h/shop?sslpassword=hunter2",
        "MARIADB_URL": "mysql://root:c4n4ry@h/shop",
        "LOG_LEVEL": "debug",
        "SOMEBODY_ELSES_TOKEN": "c4n4ry",
    }
    shown = masked(environ)
    assert shown["DATABASE_URL"] == "postgresql://app@h:5432/shop"
    assert shown["MARIADB_URL"] == "mysql://root@h:3306/shop"
    assert shown["DB_PASSWORD"] == shown["POSTGRESQL_ADDON_PASSWORD"] == "***"
    assert (shown["DB_USER"], shown["LOG_LEVEL"]) == ("me", "debug")
    for text in (str(shown), str(Settings.from_environ(environ))):
        assert "c4n4ry" not in text
        assert "hunter2" not in text


def test_wrong_configuration_ends_the_program_with_a_plain_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        check=False,
        capture_output=True,
        env={"PYTHONPATH": f"{EXAMPLES.parent}:{EXAMPLES}", "LOG_LEVEL": "loud"},
        text=True,
        timeout=50,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("service: configuration error: LOG_LEVEL must be one of")
    assert "Traceback" not in done.stderr


async def test_errors_are_of_three_kinds() -> None:
    endpoint = conpool.Endpoint("h.example", 1)
    nobody_waits = conpool.PoolConfig(max_waiting_per_endpoint=0, max_connections_per_endpoint=1)
    refused = conpool.ConnectError("no", endpoint=endpoint, phase="tcp")
    connector = MemoryConnector(trio.abc.Stream.receive_some)
    pool = conpool.ConnectionPool(nobody_waits, connector=connector)
    async with pool, pool.connection(endpoint):
        with pytest.raises(conpool.QueueFull) as full:
            await pool.acquire(endpoint)
    with pytest.raises(conpool.PoolClosed) as closed:
        await pool.acquire(endpoint)
    assert kind_of(ConfigurationError()) == kind_of(conpool.ConfigError("x")) == "configuration"
    assert kind_of(full.value) == kind_of(closed.value) == "pool"
    full.value.__cause__ = refused  # the reason why others wait
    assert kind_of(full.value) == kind_of(refused) == kind_of(psycopg.OperationalError())
    assert kind_of(refused) == "connection"

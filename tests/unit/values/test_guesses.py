"""Names that people type from habit get an error that says what to write instead."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import re
import typing
from typing import Any

import pytest
import trio

from conpool import ConfigError, Connection, ConnectionPool, Endpoint, PoolConfig
from conpool._pool.blocking import BlockingConnection
from conpool._values.config import Changes
from conpool._values.guesses import FOR_CONFIG, FOR_POOL, ON_CONNECTION, ON_LEASE, ON_POOL
from conpool._values.option import rules_of
from conpool.testing import MemoryConnector
from tests.support.pools import echo

OPTIONS = rules_of(PoolConfig)

# ── options ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("guess", "instead"),
    [
        ("max_size", "max_connections_per_endpoint, or max_connections for the whole pool"),
        ("min_size", "min_idle_per_endpoint"),
        ("keepalive_expiry", "max_idle_time"),
        ("max_keepalive_connections", "max_idle_per_endpoint"),
        ("timeout", "acquire_timeout"),
        ("max_conections", "max_connections"),
    ],
)
def test_an_option_of_another_pool_is_answered_with_ours(guess: str, instead: str) -> None:
    options: dict[str, Any] = {guess: 5}
    with pytest.raises(TypeError) as caught:
        PoolConfig(**options)
    assert str(caught.value) == f"PoolConfig has no option {guess!r}: write {instead}"
    with pytest.raises(ConfigError) as refused:
        PoolConfig().replace(**options)
    assert str(refused.value) == str(caught.value)


def test_what_resembles_nothing_is_refused_without_a_guess() -> None:
    with pytest.raises(TypeError, match="no option 'zzz'$"):
        PoolConfig(zzz=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("guess", "answer"),
    [
        ("max_connections", ": write ConnectionPool(PoolConfig(max_connections=...))"),
        ("acquire_timeout", ": write ConnectionPool(PoolConfig(acquire_timeout=...))"),
        ("keepalive_expiry", "; its PoolConfig has max_idle_time"),
        ("dsn", ": write pool.connection(endpoint): a pool serves any endpoint"),
        ("check", ": write health_check, or a driver's check()"),
        ("observer", ": write observers"),
        ("on_close", ": write on_closed"),
        ("zzz", ""),
    ],
)
def test_an_argument_of_another_pool_is_answered_with_ours(guess: str, answer: str) -> None:
    options: dict[str, Any] = {guess: 5}
    with pytest.raises(TypeError) as caught:
        ConnectionPool(**options)
    assert str(caught.value).startswith(f"ConnectionPool has no option {guess!r}{answer}")
    assert answer or str(caught.value).endswith("'zzz'")


@pytest.mark.parametrize(
    ("config", "answer"),
    [
        ("postgresql://joe:canary@db.example/shop", "Endpoint.from_url"),
        (Endpoint("db.example", 5432), "name it with each lease"),
        (("db.example", 5432), "name it with each lease"),
        (5, r"write PoolConfig\(max_connections_per_endpoint=...\)"),
        ({"max_connections": 5}, r"write PoolConfig\(\*\*options\)"),
        (None, "not None$"),
        (True, "not True$"),
        (PoolConfig, "the class PoolConfig$"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_configuration_is_answered(config: Any, answer: str) -> None:
    with pytest.raises(ConfigError, match=answer) as caught:
        ConnectionPool(config)
    assert "config must be a PoolConfig, not " in str(caught.value)
    assert "canary" not in str(caught.value)


def test_classes_that_answer_look_as_they_would_without() -> None:
    assert [*inspect.signature(PoolConfig).parameters] == [*OPTIONS]
    assert "observers" in inspect.signature(ConnectionPool).parameters
    config = PoolConfig(max_idle_time=4.0)
    assert copy.copy(config) == pickle.loads(pickle.dumps(config)) == config
    assert dataclasses.replace(config, max_idle_time=5.0).max_idle_time == 5.0
    with pytest.raises(TypeError, match="positional argument"):
        PoolConfig(5)  # type: ignore[call-arg]


def test_type_checkers_know_each_option_that_replace_takes() -> None:
    fields = {field.name: field.type for field in dataclasses.fields(PoolConfig)}
    own = {name: hint.__forward_arg__ for name, hint in Changes.__annotations__.items()}
    assert own == fields
    hints = typing.get_type_hints(PoolConfig.replace)
    assert typing.get_args(hints["changes"]) == (Changes,)


# ── environment variables ───────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("variable", "answer"),
    [
        ("CONPOOL_MAX_IDEL_TIME", ": did you mean CONPOOL_MAX_IDLE_TIME?"),
        ("CONPOOL_MAX_SIZE", ": the option is called max_connections_per_endpoint, or"),
        ("CONPOOL_CIRCUIT_BREAKER", ": it is more than one number, so set circuit_breaker in code"),
        ("CONPOOL_TOKEN", ""),
    ],
)
def test_a_misspelt_variable_is_answered(variable: str, answer: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PoolConfig.from_env(environ={variable: "canary"})
    assert str(caught.value).startswith(f"{variable} is not a setting of the pool{answer}")
    assert answer or str(caught.value).endswith("pool")
    assert "canary" not in str(caught.value)


def test_a_variable_with_a_prefix_of_ones_own_is_answered_with_that() -> None:
    with pytest.raises(ConfigError, match="did you mean APP_POOL_CLOSE_TIMEOUT"):
        PoolConfig.from_env("APP_POOL_", {"APP_POOL_CLOSE_TIME": "1"})


# ── attributes ──────────────────────────────────────────────────────────────────


def test_an_attribute_of_another_pool_is_answered_with_ours() -> None:
    pool: Any = ConnectionPool()
    for name, instead in ON_POOL.items():
        with pytest.raises(AttributeError) as caught:
            getattr(pool, name)
        assert str(caught.value) == f"a ConnectionPool has no {name!r}: write {instead}"
        assert caught.value.name == name
        assert caught.value.obj is pool


@pytest.mark.parametrize("name", ["close", "get_stats"])
def test_a_guess_is_no_attribute(name: str) -> None:
    pool = ConnectionPool()
    assert not hasattr(pool, name)
    assert not hasattr(ConnectionPool, name)
    assert getattr(pool, name, 7) == 7
    assert name not in dir(pool)
    assert "aclose" in dir(pool)
    assert not hasattr(ConnectionPool, "__getattr__"), "it would slow down what exists"


@pytest.mark.parametrize(
    ("guess", "instead"),
    [
        ("recv", "`receive_some()`, in a loop until the reply is whole"),
        ("sendall", "`send_all(data)`"),
        ("execute", "`session`, if the pool's driver made one: the connection itself is a stream"),
        ("close", "`pool.release(conn)`, or leave its block; `await conn.aclose()` closes it"),
    ],
)
async def test_an_attribute_of_another_connection_is_answered_with_ours(
    guess: str, instead: str
) -> None:
    endpoint = Endpoint("peer.example", 7)
    async with ConnectionPool(connector=MemoryConnector(echo)) as pool:
        async with pool.connection(endpoint) as conn:
            with pytest.raises(AttributeError) as caught:
                getattr(conn, guess)
            assert str(caught.value).startswith(f"a Connection has no {guess!r}: write {instead}")
            assert not hasattr(conn, guess)
            assert guess not in dir(conn)
            assert {*ON_LEASE} < {*ON_CONNECTION}

        def ask() -> None:
            with pool.blocking.connection(endpoint) as lent:
                if guess in ON_LEASE:
                    with pytest.raises(AttributeError, match="has no .* write `"):
                        getattr(lent, guess)
                assert not hasattr(lent, guess)
                assert guess not in dir(lent)

        await trio.to_thread.run_sync(ask)
    assert not hasattr(Connection, "__getattr__"), "it would slow down what exists"


def test_what_exists_is_no_guess() -> None:
    guesses = {ConnectionPool: ON_POOL, Connection: ON_CONNECTION, BlockingConnection: ON_LEASE}
    for kind, answers in guesses.items():
        defined = re.findall(r"^    (?:async )?def (\w+)", inspect.getsource(kind), re.MULTILINE)
        assert len(defined) > 5
        assert not answers.keys() & {*defined, *dir(kind.__base__)}
    assert not FOR_CONFIG.keys() & OPTIONS.keys()
    assert not FOR_POOL.keys() & inspect.signature(ConnectionPool).parameters.keys()


def test_answers_name_what_exists() -> None:
    words = {word for answer in FOR_CONFIG.values() for word in answer.replace(",", "").split()}
    named = {word for word in words if "_" in word and "(" not in word}
    assert named <= OPTIONS.keys()


# ── endpoints ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("stranger", "answer"),
    [
        (("db.example", 5432), r"a tuple \(write Endpoint\(host, port\)"),
        (["db.example", 5432], r"a list \(write Endpoint\(host, port\)"),
        ("redis://db.example", r"a str \(for a URL write Endpoint.from_url\(url\)"),
        ({"host": "db.example"}, "but a dict$"),
    ],
)
async def test_what_is_no_endpoint_is_answered_wherever_it_is_given(
    stranger: Any, answer: str
) -> None:
    async with ConnectionPool() as pool:
        for call in (pool.stats, pool.pause, pool.acquire_nowait):
            with pytest.raises(TypeError, match=answer):
                call(stranger)
        with pytest.raises(TypeError, match=answer):
            await pool.acquire(stranger)
        with pytest.raises(TypeError, match=answer):
            async with pool.connection(stranger):
                pass


async def test_a_block_that_is_awaited_is_answered() -> None:
    async with ConnectionPool() as pool:
        with pytest.raises(TypeError, match=r"write `async with pool.connection\(…\) as conn:`"):
            await pool.connection(Endpoint("db.example", 1))  # type: ignore[misc]

"""From connection strings to endpoints and back."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from psycopg import pq

from conpool import TLS, ConfigError, Endpoint, EndpointGroup, HTTPProxy, Login, UnixEndpoint
from conpool.contrib._psycopg.endpoints import Parameters, params_of
from conpool.contrib.psycopg import PsycopgDriver

endpoint = PsycopgDriver.endpoint


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for default in pq.Conninfo.get_defaults():
        if default.envvar:
            monkeypatch.delenv(default.envvar.decode(), raising=False)
    monkeypatch.setenv("PGUSER", "me")


@pytest.mark.parametrize(
    ("conninfo", "expected"),
    [
        ("postgresql://u:p@db.example/orders", Login("u", "p", "orders")),
        ("host=db.example user=u password=p dbname=orders", Login("u", "p", "orders")),
        ("host=db.example user=u", Login("u", None, "u")),
        ("host=db.example", Login("me", None, "me")),
        ("postgresql://db.example:5433", Login("me", None, "me")),
    ],
)
def test_a_connection_string_names_a_server_and_who_speaks(conninfo: str, expected: Login) -> None:
    port = 5433 if "5433" in conninfo else 5432
    found = endpoint(conninfo)
    assert isinstance(found, Endpoint)
    assert (found.host, found.port, found.login) == ("db.example", port, expected)


def test_the_environment_counts_where_nothing_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PGHOST": "env.example",
        "PGPORT": "6000",
        "PGPASSWORD": "secret",
        "PGDATABASE": "orders",
        "PGSSLMODE": "require",
    }.items():
        monkeypatch.setenv(name, value)
    found = endpoint("")
    assert str(found) == "me@env.example:6000/orders"
    assert params_of(found)["sslmode"] == "require"
    assert params_of(found)["password"] == "secret"
    assert params_of(endpoint("host=mine.example port=1", user="u")) | {} == {
        "host": "mine.example",
        "port": 1,
        "user": "u",
        "password": "secret",
        "dbname": "orders",
        "sslmode": "require",
    }


def test_a_service_in_the_environment_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    file = tmp_path / "services"
    file.write_text("[shop]\nhost=shop.example\nport=7000\ndbname=orders\napplication_name=till\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    monkeypatch.setenv("PGSERVICE", "shop")
    found = endpoint()
    assert str(found) == "me@shop.example:7000/orders"
    assert params_of(found)["application_name"] == "till"
    monkeypatch.delenv("PGSERVICE")
    with pytest.raises(ConfigError, match="PGSERVICE"):
        endpoint("service=shop")


def test_what_changes_the_session_is_part_of_the_identity() -> None:
    plain, tls = endpoint("host=db"), endpoint("host=db sslmode=require")
    assert plain != tls
    assert plain == endpoint("host=db")
    assert hash(tls) == hash(endpoint(host="db", sslmode="require"))
    assert endpoint("host=db hostaddr=10.0.0.1") != plain
    assert params_of(endpoint("host=db hostaddr=10.0.0.1"))["hostaddr"] == "10.0.0.1"
    only_address = endpoint("hostaddr=10.0.0.1")
    assert isinstance(only_address, Endpoint)
    assert only_address.host == "10.0.0.1"


def test_a_folder_is_a_unix_socket() -> None:
    found = endpoint("host=/run/postgresql port=5433 user=u")
    assert found == UnixEndpoint(
        "/run/postgresql/.s.PGSQL.5433", login=Login("u", None, "u"), partition=Parameters({})
    )
    assert params_of(found) == {
        "host": "/run/postgresql",
        "port": "5433",
        "user": "u",
        "dbname": "u",
    }
    abstract = endpoint("host=@shop port=5433")
    assert str(abstract) == "me@unix:@shop/.s.PGSQL.5433:/me"
    assert params_of(abstract)["host"] == "@shop"
    default = endpoint("")
    assert isinstance(default, UnixEndpoint)
    assert default.path.endswith("/.s.PGSQL.5432")


def test_several_hosts_are_one_endpoint_that_is_named_after_the_first() -> None:
    conninfo = "host=a.example,b.example port=1,2 load_balance_hosts=random"
    found = endpoint(conninfo)
    assert str(found) == "me@a.example:1/me"
    assert found != endpoint("host=a.example port=1 load_balance_hosts=random")
    params = params_of(found)
    assert (params["host"], params["port"]) == ("a.example,b.example", "1,2")
    assert params["load_balance_hosts"] == "random"


def test_a_group_has_an_endpoint_for_each_host() -> None:
    found = PsycopgDriver.group("host=a.example,b.example port=1,2 sslmode=require")
    assert found == EndpointGroup(
        [
            endpoint("host=a.example port=1 sslmode=require"),
            endpoint("host=b.example port=2 sslmode=require"),
        ],
        policy="first_available",
    )
    balanced = PsycopgDriver.group("host=a.example,b.example load_balance_hosts=random")
    assert balanced.policy == "round_robin"
    assert [params_of(member)["host"] for member in balanced.endpoints] == [
        "a.example",
        "b.example",
    ]
    with pytest.raises(ConfigError, match="twice"):
        PsycopgDriver.group("host=a,a")


@pytest.mark.parametrize(
    "conninfo",
    [
        "hunter2",
        "host=db password=hunter2 nonsense",
        "postgresql://u:hunter2@[db/orders",
        "host=db hunter2=1",
        "host=a,b port=1,2,3 password=hunter2",
        "host=db port=hunter2x",
    ],
)
def test_what_cannot_be_read_is_refused(conninfo: str) -> None:
    with pytest.raises(ConfigError) as caught:
        endpoint(conninfo)
    if "port" not in conninfo or "password" in conninfo:
        assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_parameters_show_no_value_and_no_secret_is_pickled() -> None:
    found = endpoint("host=db password=hunter2 sslpassword=hunter2 sslmode=require")
    assert "hunter2" not in repr(found) + repr(found.partition)
    assert repr(found.partition) == "Parameters(sslmode=<hidden>, sslpassword=<hidden>)"
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(found.partition)
    harmless = endpoint("host=db sslmode=require")
    assert pickle.loads(pickle.dumps(harmless)) == harmless
    assert harmless.partition != "something else"


@pytest.mark.parametrize(
    "cannot",
    [
        Endpoint("db", 5432, tls=True),
        Endpoint("db", 5432, proxy=HTTPProxy("proxy", 3128)),
        Endpoint("db", 5432, local_address="127.0.0.1"),
        UnixEndpoint("/run/server.sock"),
        UnixEndpoint("/run/.s.PGSQL.5432", tls=TLS(server_hostname="db")),
    ],
    ids=str,
)
def test_what_libpq_cannot_do_is_refused(cannot: Any) -> None:
    with pytest.raises(ConfigError, match="libpq"):
        params_of(cannot)

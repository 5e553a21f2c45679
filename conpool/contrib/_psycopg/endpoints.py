"""From connection strings to endpoints, and from endpoints to libpq's parameters.

An endpoint names one server: host, port, user, password, database. All other parameters are parts
of the identity, too; they travel in the endpoint's partition. So do the lists of a connection
string with several hosts: such an endpoint is named after the first of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast, final

import psycopg
from psycopg import pq
from psycopg.abc import ConnDict
from psycopg.conninfo import conninfo_to_dict

from conpool._values.config_error import ConfigError, shown
from conpool._values.endpoint import AnyEndpoint, Endpoint, UnixEndpoint
from conpool._values.group import EndpointGroup, Policy
from conpool._values.login import Login
from conpool._values.value import HIDDEN
from conpool.contrib._psycopg.inside import split_attempts

IDENTITY: Final = ("host", "hostaddr", "port", "user", "password", "dbname", "service")
"""The parameters that say which server and who speaks: they belong to an endpoint."""

_LISTS: Final[tuple[str, ...]] = ("host", "hostaddr", "port")
_SOCKET: Final = ".s.PGSQL."


@final
class Parameters(Mapping[str, str]):
    """Parameters of libpq's, as a part of an endpoint's identity; it shows no values."""

    __slots__ = ("_items",)

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._items = tuple(sorted((name, str(value)) for name, value in params.items()))

    def __getitem__(self, name: str) -> str:
        return dict(self._items)[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Parameters):
            return NotImplemented
        return self._items == other._items

    def __hash__(self) -> int:
        return hash(self._items)

    def __repr__(self) -> str:
        return f"Parameters({', '.join(f'{name}={HIDDEN}' for name in self)})"

    def __reduce__(self) -> tuple[Any, ...]:
        if any(part in name for name in self for part in ("password", "secret", "key")):
            raise TypeError("Parameters with a secret cannot be pickled")
        return Parameters, (dict(self._items),)


def read_conninfo(conninfo: str, options: Mapping[str, Any]) -> ConnDict:
    """Return all parameters that libpq would use, but for the defaults that it was built with.

    Raises:
        ConfigError: `conninfo` is none, or a parameter is unknown. No part of it is shown.
    """
    try:
        params = conninfo_to_dict(conninfo, **options)
    except (psycopg.ProgrammingError, TypeError, ValueError):
        # libpq shows the part that it does not understand, which may be the password.
        raise ConfigError("this is no connection string, or has an unknown parameter") from None
    if "service" in params:
        raise ConfigError("an endpoint needs the server itself: give no service, or set PGSERVICE")
    for default in pq.Conninfo.get_defaults():
        name = default.keyword.decode()
        if name not in params and default.val is not None and _is_chosen(name, default):
            params[name] = default.val.decode()
    return params


def _is_chosen(name: str, default: pq.misc.ConninfoOption) -> bool:
    """Whether the environment or a service file has set a parameter, or we need it."""
    if name == "service":
        return False  # the parameters that it stands for are there
    is_set = default.envvar is not None and default.envvar.decode() in os.environ
    return is_set or name in IDENTITY or default.val != default.compiled


def make_endpoint(conninfo: str, options: Mapping[str, Any]) -> AnyEndpoint:
    """Return the endpoint that libpq would connect to."""
    params = read_conninfo(conninfo, options)
    hosts = _split(params)
    lists = [name for name in _LISTS if len(hosts) > 1 and name in params]
    return _endpoint_of(hosts[0], {name: params[name] for name in lists})


def make_group(conninfo: str, options: Mapping[str, Any]) -> EndpointGroup:
    """Return an endpoint for each host."""
    params = read_conninfo(conninfo, options)
    is_random = params.pop("load_balance_hosts", "disable") == "random"
    policy: Policy = "round_robin" if is_random else "first_available"
    return EndpointGroup([_endpoint_of(host, {}) for host in _split(params)], policy=policy)


def _split(params: ConnDict) -> list[ConnDict]:
    try:
        return split_attempts(params)
    except psycopg.Error as error:  # it names no more than numbers
        raise ConfigError(str(error)) from None


def _endpoint_of(params: ConnDict, lists: Mapping[str, Any]) -> AnyEndpoint:
    rest = {name: value for name, value in params.items() if name not in IDENTITY}
    user, password, database = (params.get(name) for name in ("user", "password", "dbname"))
    login = Login(
        *(None if part is None else str(part) for part in (user, password, database or user))
    )
    host = str(params.get("host") or params.get("hostaddr") or _default_host())
    port = str(params.get("port") or _default_port())
    if params.get("host") and params.get("hostaddr"):
        rest["hostaddr"] = params["hostaddr"]
    partition = Parameters({**rest, **lists})
    if host.startswith(("/", "@")):
        path = f"{host}/{_SOCKET}{port}"
        path = "\0" + path[1:] if path.startswith("@") else path
        return UnixEndpoint(path, login=login, partition=partition)
    if not port.isdecimal():
        raise ConfigError(f"port must be a number, not {shown(port)}")
    return Endpoint(host, int(port), login=login, partition=partition)


def _default_host() -> str:
    """Return the folder where libpq looks for a socket; only a connection says that."""
    pgconn = pq.PGconn.connect_start(b"port=1")
    try:
        return pgconn.host.decode() or "localhost"
    finally:
        pgconn.finish()


def _default_port() -> str:
    """Return the port that libpq was built with."""
    for default in pq.Conninfo.get_defaults():
        if default.keyword == b"port" and default.val:
            return default.val.decode()
    return "5432"  # pragma: no cover: every libpq has one


def params_of(endpoint: AnyEndpoint) -> dict[str, Any]:
    """Return libpq's parameters for an endpoint; any may have been made without `make_endpoint`.

    Raises:
        ConfigError: libpq cannot do what the endpoint asks for.
    """
    if endpoint.tls is not None:
        raise ConfigError("libpq encrypts by itself: give it sslmode, sslrootcert, ... and no tls")
    params: dict[str, Any] = {}
    if isinstance(endpoint, UnixEndpoint):
        folder, _, port = endpoint.path.rpartition(f"/{_SOCKET}")
        if not folder or not port.isdecimal():
            raise ConfigError(f"libpq's sockets are named {_SOCKET}5432 or so")
        params |= {"host": folder.replace("\0", "@"), "port": port}
    else:
        if endpoint.proxy is not None or endpoint.local_address is not None:
            raise ConfigError("libpq knows no proxy and no local_address")
        params |= {"host": endpoint.host, "port": endpoint.port}
    login = endpoint.login or Login()
    named = {"user": login.username, "password": login.password, "dbname": login.database}
    params |= {name: value for name, value in named.items() if value is not None}
    if isinstance(endpoint.partition, Parameters):
        params |= cast("Mapping[str, str]", endpoint.partition)
    return params

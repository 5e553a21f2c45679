"""Who speaks to a server, and to which of its databases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final
from urllib.parse import quote

from conpool._values.config_error import ConfigError
from conpool._values.value import HIDDEN, Value, call_text


@final
@dataclass(frozen=True, init=False, repr=False, eq=False)
class Login(Value):
    """User name, password and database: part of an endpoint's identity, for a driver to read.

    The user name and the database are shown. The password is not: it is in no `repr`, error,
    statistic or log. So two logins that differ only in their passwords are two, but look alike.

    >>> from conpool import Endpoint, Login
    >>> endpoint = Endpoint("db.example", 5432, login=Login("app", "secret", "orders"))
    >>> print(endpoint)
    app@db.example:5432/orders
    >>> endpoint.login
    Login(username='app', password=<hidden>, database='orders')

    A `Login` with a password cannot be pickled, nor can an endpoint, an error or a statistic that
    has one: `pickle` raises `TypeError`. A copy is the `Login` itself.

    Args:
        username: As the server knows it.
        password: Any text.
        database: The name or number of a database, or a virtual host.

    Raises:
        ConfigError: A part is not a str or cannot be encoded; the user name or the database has a
            NUL, where many protocols would end it and read the rest as something else.
    """

    __slots__ = ("database", "password", "username")

    username: str | None
    password: str | None
    database: str | None

    def __init__(
        self,
        username: str | None = None,
        password: str | None = None,
        database: str | None = None,
    ) -> None:
        self._seal(
            username=_valid_part("username", username),
            password=_valid_part("password", password, with_nul=True),
            database=_valid_part("database", database),
        )

    def __repr__(self) -> str:
        return call_text(
            "Login",
            username=self.username,
            password=None if self.password is None else HIDDEN,
            database=self.database,
        )

    def _arguments(self) -> Mapping[str, object]:
        if self.password is not None:
            raise TypeError("a Login with a password cannot be pickled")
        return super()._arguments()

    def __getstate__(self) -> Mapping[str, object]:
        return self._arguments()  # the one of `object` returns all slots, the password too


# From now on it is no dataclass: `dataclasses.asdict`, and what writes dataclasses as JSON, would
# show the password. Of the decorator, the frozen fields remain, and what type checkers know.
del Login.__dataclass_fields__


def with_login(address: str, login: Login | None, slash: str = "/") -> str:
    """Write user name and database around an address, as in a URL.

    Whatever could be mistaken for a part of the address or could break a line of a log is
    percent-encoded.
    """
    if login is None:
        return address
    user = "" if login.username is None else f"{quote(login.username, safe='')}@"
    database = "" if login.database is None else f"{slash}{quote(login.database, safe='')}"
    return f"{user}{address}{database}"


def _valid_part(name: str, value: object, *, with_nul: bool = False) -> str | None:
    """Return a part of a login as a plain str. No message shows anything of it."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ConfigError(f"the login's {name} must be a str, not {type(value).__name__}")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise ConfigError(f"the login's {name} has a lone surrogate, which cannot be encoded")
    if "\0" in value and not with_nul:
        raise ConfigError(f"the login's {name} has a NUL")
    return str.__str__(value)

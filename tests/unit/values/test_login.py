from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import pprint
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

from conpool._values.config_error import ConfigError
from conpool._values.endpoint import AnyEndpoint, Endpoint, UnixEndpoint
from conpool._values.login import Login

LOGIN = Login("joe", "canary", "shop")
PARTS = ["username", "password", "database"]
each_part = pytest.mark.parametrize("part", PARTS)


def test_every_part_of_a_login_may_be_left_out() -> None:
    login = Login()
    assert (login.username, login.password, login.database) == (None, None, None)
    assert Login("joe", "pw", "shop") == Login(username="joe", password="pw", database="shop")
    assert Login("") != Login()


@each_part
@pytest.mark.parametrize("value", [1234, b"canary", True, ["canary"], object], ids=repr)
def test_a_part_that_is_no_text_is_refused_unseen(part: str, value: object) -> None:
    """G9."""
    kind = type(value).__name__
    with pytest.raises(ConfigError) as caught:
        Login(**{part: value})  # type: ignore[arg-type]
    assert str(caught.value) == f"the login's {part} must be a str, not {kind}"


@each_part
def test_a_part_that_cannot_be_encoded_is_refused_unseen(part: str) -> None:
    """G9. The error of an encoder would hold the text, so none may be chained."""
    with pytest.raises(ConfigError, match=f"the login's {part} has a lone surrogate") as caught:
        Login(**{part: "canary\ud800"})
    assert "canary" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_nul_is_refused_where_it_would_end_a_name() -> None:
    """PostgreSQL and MySQL would read what stands after it as something else."""
    for part in ("username", "database"):
        with pytest.raises(ConfigError, match=f"the login's {part} has a NUL"):
            Login(**{part: "canary\0options"})
    assert Login(password="a\0b").password == "a\0b"


@each_part
def test_a_part_of_a_kind_of_its_own_becomes_plain_text(part: str) -> None:
    """Otherwise its `__eq__` and `__hash__` would decide who shares a connection."""

    class Odd(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 7

    login = Login(**{part: Odd("joe")})
    assert type(getattr(login, part)) is str
    assert login != Login(**{part: "ann"})


# ── the password is shown nowhere ───────────────────────────────────────────────


def test_a_login_is_written_as_it_is_built_but_for_its_password() -> None:
    """G9."""
    assert repr(LOGIN) == str(LOGIN) == "Login(username='joe', password=<hidden>, database='shop')"
    assert repr(Login()) == "Login()"
    assert repr(Login(password="")) == "Login(password=<hidden>)"
    assert repr(Login("a\nb")) == "Login(username='a\\nb')"


@pytest.mark.parametrize(
    "write",
    [
        "{}".format,
        "{!r:>100}".format,
        "%s".__mod__,
        pprint.pformat,
        vars,
        dataclasses.asdict,
        dataclasses.astuple,
        json.dumps,
        object.__reduce__,
        lambda login: login.__reduce__(),
        lambda login: login.__reduce_ex__(4),
        lambda login: login.__getstate__(),
        lambda login: {
            field.name: getattr(login, field.name) for field in dataclasses.fields(login)
        },
    ],
)
def test_nothing_that_writes_any_object_writes_the_password(write: Callable[[Any], object]) -> None:
    """G9. What cannot do without the fields fails."""
    try:
        text = repr(write(LOGIN))
    except TypeError as error:
        text = "".join(traceback.format_exception_only(error))
    assert "canary" not in text


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "value", [LOGIN, Endpoint("h", 1, login=LOGIN), UnixEndpoint("/x", login=LOGIN)], ids=str
)
def test_a_password_is_not_pickled(value: object, protocol: int) -> None:
    """G9."""
    with pytest.raises(TypeError, match="^a Login with a password cannot be pickled"):
        pickle.dumps(value, protocol)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_login_without_a_password_is_pickled(protocol: int) -> None:
    login = Login("joe", database="shop")
    for value in (login, Endpoint("h", 1, login=login), UnixEndpoint("/x", login=login)):
        assert pickle.loads(pickle.dumps(value, protocol)) == value


def test_a_copy_of_a_login_is_itself_with_its_password() -> None:
    assert copy.copy(LOGIN) is copy.deepcopy(LOGIN) is LOGIN
    assert copy.deepcopy([LOGIN])[0].password == "canary"


def test_wrong_passwords_are_not_compared_letter_by_letter() -> None:
    """The time of a comparison would tell how many letters are right; the hashes differ first."""
    assert Login(password="canary1")._hash != Login(password="canary2")._hash


# ── what is shown ───────────────────────────────────────────────────────────────


TEXT = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@settings(derandomize=True, deadline=None)
@given(one=st.tuples(TEXT, TEXT), other=st.tuples(TEXT, TEXT))
@example(one=("a@h:1", None), other=("a", None))
@example(one=("a\nb", "/"), other=("a%0Ab", "%2F"))
@example(one=("", None), other=(None, ""))
def test_user_and_database_tell_endpoints_apart_in_one_plain_line(
    one: tuple[str | None, str | None], other: tuple[str | None, str | None]
) -> None:
    def shown(pair: tuple[str | None, str | None], make: Callable[[Login], AnyEndpoint]) -> str:
        user, database = pair
        text = str(make(Login(user, "pw", database)))
        assert text.isascii()
        assert text.isprintable()
        assert " " not in text
        return text

    for make in (
        lambda login: Endpoint("h", 1, login=login),
        lambda login: UnixEndpoint("/x", login=login),
    ):
        assert (shown(one, make) == shown(other, make)) is (one == other)


@pytest.mark.parametrize(
    ("login", "text"),
    [
        (Login("a@b/c", None, "x/y?#"), "a%40b%2Fc@h:1/x%2Fy%3F%23"),
        (Login("a\r\nb"), "a%0D%0Ab@h:1"),
        (Login("jörg", None, "é"), "j%C3%B6rg@h:1/%C3%A9"),
        (Login("a.b_c-d~1"), "a.b_c-d~1@h:1"),
        (Login("", None, ""), "@h:1/"),
        (Login(), "h:1"),
    ],
    ids=repr,
)
def test_odd_characters_are_shown_encoded(login: Login, text: str) -> None:
    assert str(Endpoint("h", 1, login=login)) == text

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from typing import Any

import pytest

from conpool._values.endpoint import Endpoint, UnixEndpoint
from conpool._values.group import EndpointGroup
from conpool._values.login import Login
from conpool._values.proxy import HTTPProxy, SOCKS5Proxy
from conpool._values.tls import TLS
from conpool._values.value import Value, call_text

# Two different contents for each field; one that is missing here fails the test below.
VARIED: dict[type[Value], dict[str, tuple[Any, Any]]] = {
    TLS: {
        "server_hostname": ("a.example", "b.example"),
        "alpn": (("h2",), ("http/1.1",)),
        "https_compatible": (False, True),
    },
    HTTPProxy: {
        "host": ("a.example", "b.example"),
        "port": (1, 2),
        "username": ("joe", "ann"),
        "password": ("one", "two"),
        "tls": (TLS(), TLS(server_hostname="c.example")),
    },
    SOCKS5Proxy: {
        "host": ("a.example", "b.example"),
        "port": (1, 2),
        "username": ("joe", "ann"),
        "password": ("one", "two"),
    },
    Login: {
        "username": ("joe", "ann"),
        "password": (None, "two"),
        "database": ("shop", "bills"),
    },
    Endpoint: {
        "host": ("a.example", "b.example"),
        "port": (1, 2),
        "tls": (None, TLS()),
        "proxy": (None, HTTPProxy("p.example", 1)),
        "local_address": (None, "127.0.0.1"),
        "login": (None, Login("joe", "one", "shop")),
        "partition": (None, "tenant"),
    },
    UnixEndpoint: {
        "path": ("/a", "/b"),
        "tls": (None, TLS(server_hostname="a.example")),
        "login": (None, Login("joe", "one", "shop")),
        "partition": (None, "tenant"),
    },
    EndpointGroup: {
        "endpoints": ((Endpoint("a.example", 1),), (UnixEndpoint("/a"),)),
        "policy": ("round_robin", "first_available"),
    },
}
EACH_FIELD = [(cls, name) for cls, varied in VARIED.items() for name in varied]
EXAMPLES = [
    cls(**{name: both[0] for name, both in varied.items()}) for cls, varied in VARIED.items()
]
by_type = pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: type(value).__name__)


def names_of(cls: type[Any]) -> set[str]:
    return set(cls.__annotations__)


def test_every_kind_of_value_is_walked() -> None:
    ours = {cls for cls in Value.__subclasses__() if cls.__module__.startswith("conpool.")}
    assert ours == set(VARIED)


@pytest.mark.parametrize("cls", VARIED, ids=lambda cls: cls.__name__)
def test_every_field_is_walked(cls: type[Value]) -> None:
    """G5. A context cannot stand beside alpn: test_tls tells contexts apart."""
    assert names_of(cls) - set(VARIED[cls]) == ({"context"} if cls is TLS else set())
    assert names_of(cls) == set(cls.__slots__) == set(inspect.signature(cls).parameters)


@pytest.mark.parametrize(
    ("cls", "name"), EACH_FIELD, ids=[f"G5-{cls.__name__}-{name}" for cls, name in EACH_FIELD]
)
def test_every_field_tells_values_apart(cls: type[Any], name: str) -> None:
    common = {field: both[0] for field, both in VARIED[cls].items()}
    one, other = (cls(**common | {name: content}) for content in VARIED[cls][name])
    assert one != other
    assert one == cls(**common)
    assert hash(one) == hash(cls(**common))
    assert len({one, other, cls(**common)}) == 2


@by_type
def test_equality_is_made_of_all_fields(value: Any) -> None:
    """G5."""
    assert value._key == tuple(getattr(value, name) for name in type(value).__match_args__)
    assert set(type(value).__match_args__) == names_of(type(value))


@by_type
def test_a_value_cannot_be_changed(value: Any) -> None:
    for name in (*names_of(type(value)), "_hash", "_key", "new"):
        with pytest.raises(AttributeError):
            setattr(value, name, None)
        with pytest.raises(AttributeError):
            delattr(value, name)
    assert not hasattr(value, "__dict__")


@by_type
def test_values_of_other_types_are_not_equal(value: Any) -> None:
    assert value != value._key
    assert all(value != other for other in EXAMPLES if other is not value)


def test_types_are_told_apart_even_by_the_same_fields() -> None:
    """G5."""

    class One(Value):
        def __init__(self) -> None:
            self._seal(host="h")

    class Other(Value):
        def __init__(self) -> None:
            self._seal(host="h")

    assert One() == One()
    assert One() != Other()


@by_type
def test_a_copy_of_a_value_is_itself(value: Any) -> None:
    assert copy.copy(value) is value
    assert copy.deepcopy(value) is value


@by_type
def test_a_pickled_value_comes_back_equal(value: Any) -> None:
    assert pickle.loads(pickle.dumps(value)) == value


def test_a_pickled_endpoint_is_found_by_its_hash_in_another_process() -> None:
    endpoint = Endpoint("example.org", 5432, partition=("joe", "shop"))
    program = (
        "import pickle, sys; from conpool._values.endpoint import Endpoint; "
        "sent = pickle.loads(sys.stdin.buffer.read()); "
        "assert sent in {Endpoint('example.org', 5432, partition=('joe', 'shop'))}"
    )
    subprocess.run([sys.executable, "-c", program], input=pickle.dumps(endpoint), check=True)


def test_a_hash_is_computed_once() -> None:
    class Counting:
        hashed = 0

        def __hash__(self) -> int:
            Counting.hashed += 1
            return 7

    endpoint = Endpoint("example.org", 80, partition=Counting())
    before = Counting.hashed
    assert {endpoint: "found"}[endpoint] == "found"
    assert Counting.hashed == before


def test_unequal_hashes_spare_the_fields() -> None:
    class Unequal:
        compared = 0

        def __init__(self, number: int) -> None:
            self.number = number

        def __eq__(self, other: object) -> bool:
            Unequal.compared += 1
            return isinstance(other, Unequal) and self.number == other.number

        def __hash__(self) -> int:
            return self.number

    one, other = (Endpoint("example.org", 80, partition=Unequal(n)) for n in (1, 2))
    before = Unequal.compared
    assert one == one  # noqa: PLR0124
    assert one != other
    assert Unequal.compared == before


def test_options_at_their_default_are_not_written() -> None:
    assert call_text("F", "1", a=None, b=False, c=(), d=0, e="x") == "F(1, d=0, e='x')"

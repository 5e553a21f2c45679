from __future__ import annotations

import gc
import pickle
import ssl
from typing import Any

import pytest

from conpool._values import tls
from conpool._values.config_error import ConfigError
from conpool._values.tls import TLS, certificate_name, valid_tls, valid_tls_only


def client_context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def test_tls_without_a_context_shares_one_that_verifies() -> None:
    context = TLS().context
    assert context is TLS().context
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_each_alpn_tuple_has_its_own_shared_context() -> None:
    both, one = TLS(alpn=["h2", "http/1.1"]), TLS(alpn=("h2",))
    assert both.context is TLS(alpn=("h2", "http/1.1")).context
    assert len({both.context, one.context, TLS().context}) == 3


def test_a_shared_context_offers_its_alpn(monkeypatch: pytest.MonkeyPatch) -> None:
    offered: list[list[str]] = []

    class Recording(ssl.SSLContext):
        def set_alpn_protocols(self, alpn_protocols: Any) -> None:
            offered.append(alpn_protocols)

    monkeypatch.setattr(tls, "_shared_contexts", {})
    monkeypatch.setattr(ssl, "create_default_context", lambda: Recording(ssl.PROTOCOL_TLS_CLIENT))
    TLS(alpn=("h2", "http/1.1"))
    TLS()
    assert offered == [["h2", "http/1.1"]]


def test_a_context_built_by_another_thread_meanwhile_is_everybodys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = client_context()
    contexts: dict[tuple[str, ...], ssl.SSLContext] = {}

    def build() -> ssl.SSLContext:
        contexts[()] = first
        return client_context()

    monkeypatch.setattr(tls, "_shared_contexts", contexts)
    monkeypatch.setattr(ssl, "create_default_context", build)
    assert TLS().context is first


def test_contexts_are_told_apart_by_identity() -> None:
    """G5."""
    one, other = client_context(), client_context()
    assert TLS(one) == TLS(one)
    assert TLS(one) != TLS(other)
    assert TLS(one) != TLS()


def test_a_new_context_never_takes_the_place_of_a_collected_one() -> None:
    """G5. Keyed by `id()`, almost every round would match."""
    seen: set[TLS] = set()
    for _ in range(50):
        seen.add(TLS(client_context()))
        gc.collect(0)
    assert len(seen) == 50


@pytest.mark.parametrize(
    "context",
    [
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
        object(),
        True,
        ssl,
    ],
    ids=["F016-server", "F016-purpose", "F016-object", "F016-bool", "F016-module"],
)
def test_what_is_no_context_of_a_client_is_refused(context: Any) -> None:
    with pytest.raises(ConfigError, match="context"):
        TLS(context)


def test_a_context_that_compares_by_content_is_refused() -> None:
    """G5."""

    class Alike(ssl.SSLContext):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Alike)

        def __hash__(self) -> int:
            return 1

    with pytest.raises(ConfigError, match="by identity"):
        TLS(Alike(ssl.PROTOCOL_TLS_CLIENT))


def test_alpn_beside_a_context_of_ones_own_is_refused() -> None:
    with pytest.raises(ConfigError, match="set_alpn_protocols"):
        TLS(client_context(), alpn=("h2",))


@pytest.mark.parametrize("alpn", ["h2", b"h2", None, [""], ["x" * 256], ["ü"], [b"h2"]], ids=repr)
def test_alpn_that_cannot_be_offered_is_refused(alpn: Any) -> None:
    with pytest.raises(ConfigError, match="alpn"):
        TLS(alpn=alpn)


@pytest.mark.parametrize("name", ["", "a b", "[::1]", ".example", "x\0y"], ids=repr)
def test_a_server_name_that_is_no_host_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="server_hostname"):
        TLS(server_hostname=name)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param("example.org.", "example.org", id="F008-trailing-dot"),
        pytest.param("Example.org", "Example.org", id="F008-case"),
        pytest.param("bücher.example", "xn--bcher-kva.example", id="F007-idn"),
        pytest.param("fe80::1%eth0", "fe80::1", id="F009-zone"),
    ],
)
def test_a_server_name_is_kept_as_it_is_verified(given: str, kept: str) -> None:
    assert TLS(server_hostname=given).server_hostname == kept
    assert certificate_name(given).isascii() == given.isascii()


def test_https_compatible_is_a_bool() -> None:
    with pytest.raises(ConfigError, match="https_compatible"):
        TLS(https_compatible=1)  # type: ignore[arg-type]


def test_true_means_the_default_tls_and_false_none() -> None:
    assert valid_tls(True) == TLS()
    assert valid_tls(False) is None
    assert valid_tls(None) is None
    assert valid_tls(TLS()) == TLS()


@pytest.mark.parametrize("tls", [1, "yes", client_context(), True], ids=["1", "str", "ctx", "True"])
def test_what_is_no_tls_is_refused(tls: object) -> None:
    with pytest.raises(ConfigError, match="tls must be a TLS"):
        valid_tls_only(tls)


def test_tls_shows_its_options_and_no_more_of_a_context_than_its_type() -> None:
    assert repr(TLS()) == "TLS()"
    assert repr(TLS(client_context())) == "TLS(<SSLContext>)"
    tls = TLS(server_hostname="a.example", alpn=["h2"], https_compatible=True)
    assert repr(tls) == "TLS(server_hostname='a.example', alpn=('h2',), https_compatible=True)"


def test_a_context_of_ones_own_cannot_be_pickled() -> None:
    with pytest.raises(TypeError, match="SSLContext"):
        pickle.dumps(TLS(client_context()))

from __future__ import annotations

from typing import Any

import pytest

from conpool._values.config_error import ConfigError
from conpool._values.endpoint import Endpoint
from conpool._values.proxy import HTTPProxy, SOCKS5Proxy
from conpool._values.tls import TLS

KINDS: list[type[Any]] = [HTTPProxy, SOCKS5Proxy]
both = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@both
@pytest.mark.parametrize(
    "credential",
    ["a\rb", "a\nb", "secret\n", "a\0b", "\x7f", "\x85", "\ud800", 7, b"bytes"],
    ids="F017-{!a}".format,
)
def test_credentials_that_no_protocol_can_carry_are_refused_unseen(
    kind: type[Any], credential: Any
) -> None:
    """G9."""
    for user, password in [(credential, "pw"), ("user", credential)]:
        with pytest.raises(ConfigError, match=r"the proxy's (username|password)") as caught:
            kind("p.example", 3128, username=user, password=password)
        assert repr(credential) not in str(caught.value)


@both
@pytest.mark.parametrize(("host", "port"), [("", 1), ("a b", 1), ("a", 0), ("a", True)])
def test_a_proxy_that_cannot_be_dialled_is_refused(kind: type[Any], host: str, port: int) -> None:
    with pytest.raises(ConfigError, match=r"the proxy's (host|port)"):
        kind(host, port)


@both
def test_a_password_needs_a_user(kind: type[Any]) -> None:
    with pytest.raises(ConfigError, match="username"):
        kind("p.example", 1, password="pw")


def test_an_http_proxy_takes_a_user_without_a_password_but_without_a_colon() -> None:
    """F017."""
    assert HTTPProxy("p.example", 1, username="joe").password is None
    with pytest.raises(ConfigError, match="colon"):
        HTTPProxy("p.example", 1, username="joe:x")
    assert HTTPProxy("p.example", 1, username="joe", password="a:b").password == "a:b"


def test_the_hop_to_an_http_proxy_can_be_encrypted() -> None:
    assert HTTPProxy("p.example", 1, tls=True).tls == TLS()
    assert HTTPProxy("p.example", 1).tls is None
    with pytest.raises(ConfigError, match="tls"):
        HTTPProxy("p.example", 1, tls="yes")  # type: ignore[arg-type]


def test_a_socks5_user_needs_a_password() -> None:
    with pytest.raises(ConfigError, match="or neither"):
        SOCKS5Proxy("p.example", 1, username="joe")


@pytest.mark.parametrize("credential", ["", "x" * 256, "ü" * 128], ids=["none", "256", "F017-utf8"])
def test_a_socks5_credential_has_1_to_255_bytes(credential: str) -> None:
    for user, password in [(credential, "pw"), ("user", credential)]:
        with pytest.raises(ConfigError, match="1 to 255 bytes"):
            SOCKS5Proxy("p.example", 1, username=user, password=password)
    assert SOCKS5Proxy("p.example", 1, username="x" * 255, password="ü").password == "ü"


@both
def test_no_text_of_a_proxy_shows_its_credentials(kind: type[Any]) -> None:
    """G9."""
    proxy = kind("p.example", 1, username="canary-user", password="canary-password")
    endpoint = Endpoint("example.org", 80, proxy=proxy)
    for text in (repr(proxy), str(proxy), repr(endpoint), str(endpoint)):
        assert "canary" not in text
        assert "p.example" in text
    assert repr(proxy) == f"{kind.__name__}('p.example', 1, credentials=<hidden>)"
    assert repr(kind("p.example", 1)) == f"{kind.__name__}('p.example', 1)"

from __future__ import annotations

import dataclasses
import os
import pathlib
import ssl
import sys
from typing import Any

import pytest

from conpool._values.config_error import ConfigError
from conpool._values.endpoint import AnyEndpoint, Endpoint, UnixEndpoint, server_name
from conpool._values.login import Login
from conpool._values.proxy import HTTPProxy, SOCKS5Proxy
from conpool._values.tls import TLS

LONGEST = 107 if sys.platform == "linux" else 103


def unchecked_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    return context


# ── Endpoint ────────────────────────────────────────────────────────────────────


def test_an_endpoint_needs_no_more_than_host_and_port() -> None:
    endpoint = Endpoint("example.org", 80)
    assert (endpoint.host, endpoint.port) == ("example.org", 80)
    assert endpoint.tls is None
    assert endpoint.proxy is None
    assert endpoint.local_address is None
    assert endpoint.login is None
    assert endpoint.partition is None


@pytest.mark.parametrize(
    ("host", "port"),
    [
        pytest.param("h", 0, id="F001-0"),
        pytest.param("h", 65536, id="F001-65536"),
        pytest.param("h", True, id="F002-bool"),
        pytest.param("h", "80", id="F002-str"),
        pytest.param("", 80, id="F003-empty"),
        pytest.param("a\r\nb", 80, id="F003-newline"),
        pytest.param("127.0.0.1\0x", 80, id="F004-nul"),
        pytest.param("a" * 64, 80, id="F005-label"),
        pytest.param("a." * 150, 80, id="F006-long"),
        pytest.param("[::1]", 80, id="F009-brackets"),
    ],
)
def test_an_endpoint_that_cannot_be_dialled_is_refused(host: str, port: int) -> None:
    with pytest.raises(ConfigError, match=r"host|port"):
        Endpoint(host, port)


@pytest.mark.parametrize("address", ["", "a b", "[::1]", 7, "127.0.0.1:80"], ids=repr)
def test_a_local_address_that_cannot_be_bound_is_refused(address: Any) -> None:
    with pytest.raises(ConfigError, match="local_address"):
        Endpoint("h", 80, local_address=address)
    assert Endpoint("h", 80, local_address="::1").local_address == "::1"


@pytest.mark.parametrize("tls", [1, "yes", ssl.create_default_context()], ids=["1", "str", "ctx"])
def test_what_is_no_tls_is_refused(tls: Any) -> None:
    with pytest.raises(ConfigError, match="tls"):
        Endpoint("h", 80, tls=tls)


def test_true_is_the_default_tls() -> None:
    assert Endpoint("h", 443, tls=True) == Endpoint("h", 443, tls=TLS())
    assert Endpoint("h", 443, tls=True) != Endpoint("h", 443)


@pytest.mark.parametrize("proxy", ["http://p:1", Endpoint("p", 1), True], ids=str)
def test_what_is_no_proxy_is_refused(proxy: Any) -> None:
    with pytest.raises(ConfigError, match="proxy must be"):
        Endpoint("h", 80, proxy=proxy)


def test_a_proxy_gets_no_zone_of_this_machine() -> None:
    with pytest.raises(ConfigError, match="zone"):
        Endpoint("fe80::1%eth0", 80, proxy=SOCKS5Proxy("p", 1))


@pytest.mark.parametrize("login", ["joe:canary", ("joe", "canary"), True, Login], ids=repr)
def test_what_is_no_login_is_refused_unseen(login: Any) -> None:
    """G9."""
    for build in (lambda: Endpoint("h", 80, login=login), lambda: UnixEndpoint("/x", login=login)):
        with pytest.raises(ConfigError, match="login must be a Login, not") as caught:
            build()
        assert "canary" not in str(caught.value)


def test_a_partition_that_cannot_be_compared_is_refused() -> None:
    """F018."""
    with pytest.raises(ConfigError, match="partition"):
        Endpoint("h", 80, partition=["joe"])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="partition"):
        UnixEndpoint("/x", partition=["joe"])  # type: ignore[arg-type]


def test_case_counts_in_the_identity_as_in_what_is_verified() -> None:
    """F008, G5."""
    upper, lower = (Endpoint(h, 443, tls=True) for h in ("Example.COM", "example.com"))
    assert upper != lower
    assert (upper.host, server_name(upper)) == ("Example.COM", "Example.COM")


def test_a_trailing_dot_is_dialled_but_not_verified() -> None:
    """F008."""
    endpoint = Endpoint("example.org.", 443, tls=True)
    assert (endpoint.host, server_name(endpoint)) == ("example.org.", "example.org")
    assert endpoint != Endpoint("example.org", 443, tls=True)


def test_an_international_name_is_its_a_label_everywhere() -> None:
    """F007."""
    endpoint = Endpoint("bücher.example", 443, tls=True)
    assert endpoint == Endpoint("xn--bcher-kva.example", 443, tls=True)
    assert endpoint.host == server_name(endpoint) == "xn--bcher-kva.example"


def test_a_zone_is_part_of_the_identity_but_not_verified() -> None:
    """F009."""
    one, other = (Endpoint(f"fe80::1%{zone}", 443, tls=True) for zone in ("eth0", "eth1"))
    assert one != other
    assert server_name(one) == server_name(other) == "fe80::1"


def test_a_server_name_comes_from_tls_or_else_from_the_host() -> None:
    tls = TLS(server_hostname="sni.example")
    assert server_name(Endpoint("h.example", 443, tls=tls)) == "sni.example"
    assert server_name(Endpoint("h.example", 443, tls=True)) == "h.example"
    assert server_name(Endpoint("h.example", 80)) is None
    assert server_name(HTTPProxy("p.example", 1, tls=True)) == "p.example"
    assert server_name(HTTPProxy("p.example", 1, tls=tls)) == "sni.example"
    assert server_name(HTTPProxy("p.example", 1)) is None


def test_over_tcp_there_is_always_a_name_to_verify() -> None:
    """F015."""
    for target in (Endpoint("192.0.2.1", 443, tls=True), HTTPProxy("::1", 443, tls=True)):
        assert target.tls is not None
        assert target.tls.context.check_hostname
        assert server_name(target) == target.host


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        (Endpoint("example.org", 80), "example.org:80"),
        (Endpoint("::1", 80), "[::1]:80"),
        (Endpoint("example.org", 443, tls=True), "example.org:443 (TLS)"),
        (Endpoint("h", 1, proxy=SOCKS5Proxy("::1", 9050)), "h:1 (via [::1]:9050)"),
        (Endpoint("h", 1, tls=True, proxy=HTTPProxy("p", 8)), "h:1 (TLS, via p:8)"),
        (Endpoint("db.example", 1, login=Login("app", "pw", "shop")), "app@db.example:1/shop"),
        (Endpoint("::1", 1, tls=True, login=Login(database="0")), "[::1]:1/0 (TLS)"),
        (Endpoint("h", 1, proxy=SOCKS5Proxy("p", 8), login=Login("joe")), "joe@h:1 (via p:8)"),
        (Endpoint("h", 1, login=Login(password="pw")), "h:1"),
        (UnixEndpoint("/run/x.sock"), "unix:/run/x.sock"),
        (UnixEndpoint("/x", login=Login("app", "pw", "shop")), "app@unix:/x:/shop"),
        (UnixEndpoint("\0x", login=Login(database="7")), "unix:@x:/7"),
        (UnixEndpoint("\0bus"), "unix:@bus"),
        (UnixEndpoint("/a\nb"), "unix:/a\\nb"),
        (UnixEndpoint("/x", tls=TLS(server_hostname="h")), "unix:/x (TLS)"),
    ],
    ids=str,
)
def test_an_endpoint_is_short_for_people(endpoint: AnyEndpoint, text: str) -> None:
    assert str(endpoint) == text


def test_an_endpoint_is_written_as_it_is_built_but_for_secrets() -> None:
    assert repr(Endpoint("h", 1)) == "Endpoint('h', 1)"
    endpoint = Endpoint("h", 1, tls=True, local_address="::1", partition=7)
    assert repr(endpoint) == (
        "Endpoint('h', 1, tls=TLS(), local_address='::1', partition=<hidden>)"
    )
    assert repr(UnixEndpoint("/x", partition=7)) == "UnixEndpoint('/x', partition=<hidden>)"
    login = Login("joe", "canary", "shop")
    shown = "login=Login(username='joe', password=<hidden>, database='shop')"
    assert repr(Endpoint("h", 1, login=login)) == f"Endpoint('h', 1, {shown})"
    assert repr(UnixEndpoint("/x", login=login)) == f"UnixEndpoint('/x', {shown})"


def test_no_text_shows_a_partition() -> None:
    """G9."""
    for endpoint in (
        Endpoint("h", 1, partition="canary"),
        Endpoint("h", 1, partition=("joe", b"canary")),
        UnixEndpoint("/x", partition="canary"),
    ):
        assert "canary" not in f"{endpoint} {endpoint!r}"


def test_no_text_shows_a_password() -> None:
    """G9."""
    for endpoint in (
        Endpoint.from_url("postgresql://joe:canary@h/shop"),
        Endpoint("h", 1, login=Login("joe", "canary")),
        UnixEndpoint("/x", login=Login("joe", "canary")),
    ):
        assert "canary" not in f"{endpoint} {endpoint!r} {endpoint.__getstate__()}"
        assert "canary" not in f"{dataclasses.asdict(endpoint)}"
        assert "joe" in str(endpoint)


# ── from_url ────────────────────────────────────────────────────────────────────


def test_a_url_becomes_an_endpoint() -> None:
    assert Endpoint.from_url("http://example.org/path") == Endpoint("example.org", 80)
    assert Endpoint.from_url("https://example.org") == Endpoint("example.org", 443, tls=True)
    assert Endpoint.from_url("unix:///run/x.sock") == UnixEndpoint("/run/x.sock")
    endpoint = Endpoint.from_url("rediss://joe:pw@h:6380/2")
    assert isinstance(endpoint, Endpoint)
    assert (endpoint.host, endpoint.port, endpoint.tls) == ("h", 6380, TLS())
    assert endpoint.login == Login("joe", "pw", "2")
    assert endpoint.partition is None


def test_urls_share_connections_only_if_host_port_tls_and_session_agree() -> None:
    """G5."""
    urls = [
        f"{scheme}://{userinfo}{address}/{database}"
        for scheme in ("redis", "rediss")
        for userinfo in ("", "joe:one@", "joe:two@", "ann:one@")
        for address in ("a", "b", "a:1")
        for database in ("1", "2")
    ]
    assert len({Endpoint.from_url(url) for url in urls}) == len(urls)
    assert len({Endpoint.from_url(url) for url in urls + urls}) == len(urls)


def test_tls_given_beside_a_url_is_what_counts() -> None:
    tls = TLS(server_hostname="sni.example")
    for url in ("postgresql://h", "rediss://h", "http://h", "unix:///x"):
        assert Endpoint.from_url(url, tls=tls).tls is tls


@pytest.mark.parametrize("tls", [True, False, 1, ssl.create_default_context()], ids=type)
def test_tls_beside_a_url_is_a_tls(tls: Any) -> None:
    with pytest.raises(ConfigError, match="tls must be a TLS"):
        Endpoint.from_url("https://h", tls=tls)


def test_a_wrong_url_is_refused() -> None:
    for url in ("gopher://h", "postgresql://h?sslmode=require", "unix://", "http://h:0"):
        with pytest.raises(ConfigError):
            Endpoint.from_url(url)


# ── UnixEndpoint ────────────────────────────────────────────────────────────────


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"/run/\xff.sock"


class NoPath(os.PathLike[str]):
    def __fspath__(self) -> str:
        return 7  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param("/run/x.sock", "/run/x.sock", id="F010-absolute"),
        pytest.param("x.sock", "x.sock", id="F010-relative"),
        pytest.param(pathlib.PurePosixPath("/run/x"), "/run/x", id="F010-PathLike"),
        pytest.param(b"/run/x", "/run/x", id="F010-bytes"),
        pytest.param(BytesPath(), "/run/\udcff.sock", id="F010-bytes-PathLike"),
        pytest.param("\0bus", "\0bus", id="F051-abstract"),
        pytest.param("/" + "a" * (LONGEST - 1), "/" + "a" * (LONGEST - 1), id="F010-longest"),
    ],
)
def test_a_path_is_kept_as_text(given: Any, kept: str) -> None:
    assert UnixEndpoint(given).path == kept


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("", id="F010-empty"),
        pytest.param("\0", id="F010-empty-abstract"),
        pytest.param("/a\0b", id="F010-nul"),
        pytest.param("\0a\0b", id="F010-second-nul"),
        pytest.param("/" + "a" * LONGEST, id="F010-long"),
        pytest.param("/" + "ü" * 54, id="F010-long-encoded"),
        pytest.param("/\ud800", id="surrogate"),
        pytest.param(None, id="None"),
        pytest.param(7, id="descriptor"),
        pytest.param(NoPath(), id="no-path"),
    ],
)
def test_a_path_that_no_socket_can_have_is_refused(path: Any) -> None:
    with pytest.raises(ConfigError, match="path"):
        UnixEndpoint(path)


def test_an_abstract_name_is_not_the_path_that_looks_like_it() -> None:
    """F051, G5."""
    assert len({UnixEndpoint("\0bus"), UnixEndpoint("@bus"), UnixEndpoint("\\0bus")}) == 3


def test_tls_over_a_unix_socket_needs_a_name_to_verify() -> None:
    """F015."""
    with pytest.raises(ConfigError, match="server_hostname"):
        UnixEndpoint("/x", tls=TLS())
    assert server_name(UnixEndpoint("/x", tls=TLS(server_hostname="h"))) == "h"
    assert server_name(UnixEndpoint("/x", tls=TLS(unchecked_context()))) is None
    assert server_name(UnixEndpoint("/x")) is None


@pytest.mark.parametrize("tls", [True, False, "yes"], ids=repr)
def test_tls_over_a_unix_socket_is_a_tls(tls: Any) -> None:
    with pytest.raises(ConfigError, match="tls must be a TLS"):
        UnixEndpoint("/x", tls=tls)

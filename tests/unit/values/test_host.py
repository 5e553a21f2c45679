from __future__ import annotations

import pytest

from conpool._values.config_error import ConfigError
from conpool._values.host import valid_host

BAD_HOSTS = {
    "F003-empty": "",
    "F003-blank": " ",
    "F003-blank-inside": "exa mple",
    "F003-newline": "a\r\nb",
    "F003-ideographic-blank": "a\u3000b",
    "F003-bidi-mark": "a\u202eb",
    "F004-nul": "127.0.0.1\0x",
    "F005-long-label": "a" * 64,
    "F005-dot": ".",
    "F005-leading-dot": ".example",
    "F005-two-dots": "a..b",
    "F005-bad-a-label": "xn--☃",
    "F006-300-characters": "a." * 150,
    "F006-too-long-encoded": ".".join(["ü" * 40] * 6),
    "F007-ambiguous": "straße.example",
    "F009-brackets": "[::1]",
    "F009-empty-zone": "fe80::1%",
    "F009-zone-with-slash": "fe80::1%a/b",
    "F009-zone-of-ipv4": "127.0.0.1%eth0",
    "port": "example.org:443",
    "url": "https://example.org",
    "several": "a,b",
    "slash-by-normalisation": "℀.example",
    "colon-by-normalisation": "a\uff1ab",
}


@pytest.mark.parametrize("host", BAD_HOSTS.values(), ids=BAD_HOSTS.keys())
def test_a_host_that_cannot_be_dialled_as_written_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="host cannot be"):
        valid_host("host", host)


@pytest.mark.parametrize("host", [None, b"example.org", 7, True], ids=repr)
def test_a_host_that_is_no_text_is_refused(host: object) -> None:
    with pytest.raises(ConfigError, match="host must be a str"):
        valid_host("host", host)


GOOD_HOSTS = {
    "name": "example.org",
    "one-label": "localhost",
    "underscore": "my_service",
    "F008-case": "Example.COM",
    "F008-trailing-dot": "example.org.",
    "F007-a-label": "xn--bcher-kva.example",
    "F009-ipv6": "::1",
    "F009-zone": "fe80::1%eth0",
    "F009-unknown-zone": "fe80::1%nosuch",
    "ipv4": "127.0.0.1",
    "longest": ".".join(["a" * 63] * 3 + ["a" * 61]),
    "longest-with-dot": ".".join(["a" * 63] * 3 + ["a" * 61]) + ".",
}


@pytest.mark.parametrize("host", GOOD_HOSTS.values(), ids=GOOD_HOSTS.keys())
def test_a_host_is_kept_as_given(host: str) -> None:
    assert valid_host("host", host) == host


def test_an_international_host_becomes_its_a_label() -> None:
    """F007."""
    assert valid_host("host", "bücher.example") == "xn--bcher-kva.example"


def test_a_url_given_as_a_host_does_not_show_its_password() -> None:
    """G9."""
    with pytest.raises(ConfigError, match="from_url") as caught:
        valid_host("host", "redis://:canary@h")
    assert "canary" not in str(caught.value)


def test_a_host_of_a_subclass_of_str_becomes_plain_text() -> None:
    class Odd(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "elsewhere.example"

    host = valid_host("host", Odd("::1"))
    assert type(host) is str
    assert host == "::1"


@pytest.mark.parametrize(
    "host",
    [
        "https://db.example/?token=canary",
        "redis://joe:canary@db.example",
        "joe:canary",
        "host=db password=canary",
        "db.example?password=canary",
        "canary@db",
        "db.example#canary",
        "db.example;pw=canary",
    ],
)
def test_f157_what_may_hold_a_secret_is_not_shown(host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        valid_host("host", host)
    assert "canary" not in str(caught.value)


def test_a_plain_host_is_shown() -> None:
    with pytest.raises(ConfigError, match=r"host cannot be 'a\.\.b': "):
        valid_host("host", "a..b")

from __future__ import annotations

import traceback
from urllib.parse import quote

import pytest
from hypothesis import given, settings, strategies as st

from conpool._values import url as url_module
from conpool._values.config_error import ConfigError
from conpool._values.login import Login
from conpool._values.url import Parsed, parse_url

DEFAULT_PORTS = {
    "http": 80,
    "https": 443,
    "redis": 6379,
    "rediss": 6379,
    "postgres": 5432,
    "postgresql": 5432,
    "mysql": 3306,
    "memcached": 11211,
    "amqp": 5672,
    "amqps": 5671,
}
WITH_SESSION = ["redis", "rediss", "postgres", "postgresql", "mysql", "amqp", "amqps"]
WITHOUT_SESSION = ["http", "https", "tcp", "tls", "memcached"]
with_session = pytest.mark.parametrize("scheme", WITH_SESSION)
without_session = pytest.mark.parametrize("scheme", WITHOUT_SESSION)


def login_of(url: str) -> Login:
    login = parse_url(url).login
    assert login is not None
    return login


def test_these_are_the_schemes() -> None:
    assert set(url_module._SCHEMES) == {*DEFAULT_PORTS, "tcp", "tls", "unix"}


@pytest.mark.parametrize(("scheme", "port"), DEFAULT_PORTS.items())
def test_a_scheme_has_its_usual_port(scheme: str, port: int) -> None:
    assert parse_url(f"{scheme}://h.example").port == port
    assert parse_url(f"{scheme}://h.example:/").port == port
    assert parse_url(f"{scheme}://h.example:1234").port == 1234


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_a_scheme_without_a_usual_port_needs_one(scheme: str) -> None:
    assert parse_url(f"{scheme}://h.example:7").port == 7
    with pytest.raises(ConfigError, match=f"a {scheme} URL needs a port"):
        parse_url(f"{scheme}://h.example")


def test_these_schemes_are_encrypted_from_the_first_byte() -> None:
    encrypted = {
        s for s in url_module._SCHEMES if s != "unix" and parse_url(f"{s}://h:1").encrypted
    }
    assert encrypted == {"https", "rediss", "amqps", "tls"}


def test_the_case_of_a_scheme_does_not_matter() -> None:
    assert parse_url("HTTPS://h.example") == parse_url("https://h.example")


@pytest.mark.parametrize(
    ("address", "host"),
    [
        pytest.param("Example.org", "Example.org", id="F008-case"),
        pytest.param("example.org.", "example.org.", id="F008-trailing-dot"),
        pytest.param("bücher.example", "xn--bcher-kva.example", id="F007-idn"),
        pytest.param("b%C3%BCcher.example", "xn--bcher-kva.example", id="F007-encoded"),
        pytest.param("[::1]", "::1", id="F009-ipv6"),
        pytest.param("[fe80::1%25eth0]", "fe80::1%eth0", id="F009-zone"),
        pytest.param("[fe80::1%eth0]", "fe80::1%eth0", id="F009-raw-zone"),
        pytest.param("127.0.0.1", "127.0.0.1", id="ipv4"),
    ],
)
@pytest.mark.parametrize("port", ["", ":99"])
def test_a_host_is_taken_as_an_endpoint_takes_it(address: str, host: str, port: str) -> None:
    parsed = parse_url(f"http://{address}{port}/x")
    assert (parsed.host, parsed.port) == (host, int(port[1:] or 80))


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":80",
        "user@",
        pytest.param("h:0", id="F001-0"),
        pytest.param("h:65536", id="F001-65536"),
        pytest.param("h:-1", id="F001-negative"),
        "h:+80",
        "h:8_0",
        "h:٨٠",
        "h:100063000",
        pytest.param("h:" + "1" * 5000, id="more digits than int() takes"),
        "h:x",
        "h:1:2",
        "::1",
        "[::1",
        "[::1]x",
        "[::1]:x",
        "[h]",
        "[]",
        pytest.param("a%00b", id="F004-nul"),
        pytest.param("a%20b", id="F003-blank"),
        pytest.param("a%0D%0Ab", id="F003-newline"),
        "a%2Fb",
        "%2Frun%2Fpostgresql",
        "a%3A80",
        "%FF",
        "a,b",
        "h1:1,h2:2",
    ],
)
def test_an_address_that_cannot_be_dialled_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="host"):
        parse_url(f"http://{address}/")


@pytest.mark.parametrize("url", [None, 7, b"http://h"], ids=repr)
def test_a_url_is_text(url: object) -> None:
    with pytest.raises(ConfigError, match="must be a str"):
        parse_url(url)


@pytest.mark.parametrize("url", ["", "h.example:80", "//h.example", "://h", "1x://h", "http:/h"])
def test_text_without_a_scheme_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="must start with a scheme"):
        parse_url(url)


@pytest.mark.parametrize("scheme", ["ftp", "postgresql+psycopg", "redis-socket", "httpx"])
def test_an_unknown_scheme_is_refused_with_the_known_ones(scheme: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown scheme {scheme.replace('+', '.')}://.*rediss"):
        parse_url(f"{scheme}://h.example")


@pytest.mark.parametrize("blank", [" ", "\n", "\0", "\u2028", "\u200b", "\ud800"], ids=ascii)
def test_blanks_and_control_characters_are_refused_anywhere(blank: str) -> None:
    """F003. `urlsplit` would drop a newline and dial what remains."""
    for url in (f"http://h{blank}.example/", f"http://h.example/{blank}", f"http://u{blank}@h"):
        with pytest.raises(ConfigError, match="percent-encode"):
            parse_url(url)


# ── UNIX sockets ────────────────────────────────────────────────────────────────


def test_a_unix_url_is_a_path() -> None:
    assert parse_url("unix:///run/a%20b.sock") == Parsed("", 0, "/run/a b.sock", False, None)


@pytest.mark.parametrize("url", ["unix://run/x.sock", "unix://user:pw@/run/x.sock"])
def test_a_unix_url_has_no_host(url: str) -> None:
    with pytest.raises(ConfigError, match="three slashes"):
        parse_url(url)


# ── sessions ────────────────────────────────────────────────────────────────────


@without_session
def test_where_there_is_no_session_neither_path_nor_credentials_count(scheme: str) -> None:
    parsed = parse_url(f"{scheme}://joe:canary@h.example:1/some/path")
    assert parsed == parse_url(f"{scheme}://h.example:1")
    assert parsed.login is None


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "mysql"])
@pytest.mark.parametrize("rest", ["h.example", "h.example/", "@h.example"])
def test_a_url_that_says_nothing_of_a_session_has_no_login(scheme: str, rest: str) -> None:
    assert parse_url(f"{scheme}://{rest}").login is None


@with_session
def test_whatever_tells_sessions_apart_tells_logins_apart(scheme: str) -> None:
    """G5."""
    urls = [
        f"{scheme}://{userinfo}h.example/{database}"
        for userinfo in ("", "joe@", "ann@", "joe:one@", "joe:two@", "joe:@", ":one@")
        for database in ("1", "2")
    ]
    assert len({login_of(url) for url in urls}) == len(urls)
    assert [login_of(url) for url in urls] == [login_of(url) for url in urls]


def test_a_password_may_be_empty_and_may_have_a_colon() -> None:
    assert login_of("redis://joe:@h.example").password == ""
    assert login_of("redis://joe:a:b@h.example").password == "a:b"
    assert login_of("mysql://:@h.example") == Login(password="")
    assert login_of("mysql://joe@h.example").password is None


def test_a_login_names_user_and_database() -> None:
    assert login_of("postgresql://joe@h.example/shop") == Login("joe", None, "shop")
    assert login_of("mysql://h.example/shop") == Login(None, None, "shop")
    assert login_of("postgres://j%40e:p%2Fw@h.example/a%2Fb") == Login("j@e", "p/w", "a/b")


def test_both_names_of_postgres_are_one() -> None:
    url = "://joe:pw@h.example/shop"
    assert parse_url("postgres" + url) == parse_url("postgresql" + url)


def test_redis_has_numbers_and_0_is_the_default() -> None:
    assert login_of("redis://h.example").database == "0"
    assert login_of("redis://h.example/") == login_of("redis://h.example/0")
    assert login_of("redis://h.example/07").database == "7"


@pytest.mark.parametrize("path", ["x", "-1", "1/2", "٣", "1" * 10])
def test_a_redis_database_that_is_no_number_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="number of a database"):
        parse_url(f"redis://h.example/{path}")


def test_amqp_tells_the_default_virtual_host_from_the_empty_one() -> None:
    assert login_of("amqp://h.example").database == "/"
    assert login_of("amqp://h.example/%2F").database == "/"
    assert login_of("amqp://h.example/").database == ""
    assert login_of("amqp://h.example/shop").database == "shop"


@pytest.mark.parametrize("url", ["mysql://a%00b@h.example/", "mysql://h.example/a%0Ab"])
def test_control_characters_in_a_login_are_refused(url: str) -> None:
    """A server would end the user name at a NUL, and read the rest as something else."""
    with pytest.raises(ConfigError, match="control character"):
        parse_url(url)


@pytest.mark.parametrize("url", ["mysql://%ff@h.example/", "mysql://u:%ff@h", "mysql://h/%ff"])
def test_what_is_not_utf8_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="not percent-encoded UTF-8"):
        parse_url(url)


TEXT = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1)


@settings(derandomize=True, deadline=None)
@given(user=TEXT, password=st.text(st.characters(exclude_categories=["Cs"])), database=TEXT)
def test_any_encoded_login_is_read_as_it_was(user: str, password: str, database: str) -> None:
    url = "://{}:{}@h.example/{}".format(*(quote(s, safe="") for s in (user, password, database)))
    for scheme in ("postgresql", "mysql", "amqps"):
        parsed = parse_url(scheme + url)
        assert parsed.host == "h.example"
        assert parsed.login == Login(user, password, database)


# ── options ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "option",
    [
        "sslmode=require",
        "ssl=true",
        "tls",
        "ssl_mode=REQUIRED",
        "ssl-mode=REQUIRED",
        "useSSL=true",
        "requiressl=1",
        "ssl_cert_reqs=none",
        "sslrootcert=system",
        "ssl%6Dode=require",
        "cacertfile=x",
        "server_name_indication=x",
        "verify=verify_none",
        "application_name=x&sslmode=disable",
    ],
)
@pytest.mark.parametrize("scheme", ["rediss", "postgresql", "mysql", "amqp", "tls", "unix"])
def test_tls_cannot_be_set_by_an_option(scheme: str, option: str) -> None:
    host = "" if scheme == "unix" else "h.example"
    with pytest.raises(ConfigError, match="TLS is set by the scheme or by the argument tls"):
        parse_url(f"{scheme}://{host}/1?{option}")


@pytest.mark.parametrize("option", ["db=2", "user=joe", "password=canary", "host=x", "dbname=y"])
@with_session
def test_the_session_cannot_be_set_by_an_option(scheme: str, option: str) -> None:
    with pytest.raises(ConfigError, match="put it before the") as caught:
        parse_url(f"{scheme}://h.example/1?{option}")
    assert "canary" not in str(caught.value)


@with_session
def test_other_options_are_the_drivers_affair(scheme: str) -> None:
    url = f"{scheme}://h.example/1"
    assert parse_url(f"{url}?application_name=x&connect_timeout=2") == parse_url(url)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_query_of_a_request_says_nothing_of_the_connection(scheme: str) -> None:
    url = f"{scheme}://h.example/a@b?ssl=1&user=joe@example.org#top"
    assert parse_url(url) == parse_url(f"{scheme}://h.example")


# ── passwords that were not encoded ─────────────────────────────────────────────


@pytest.mark.parametrize("reserved", list("/?#"))
@pytest.mark.parametrize("first", ["pa", "12", "1234567", ""])
@with_session
def test_a_raw_password_is_refused_before_its_start_becomes_a_host(
    scheme: str, first: str, reserved: str
) -> None:
    with pytest.raises(ConfigError, match="percent-encode"):
        parse_url(f"{scheme}://joe:{first}{reserved}canary@h.example/1")


def chained(error: BaseException | None) -> str:
    """Write out an error with its causes and contexts, suppressed ones too."""
    if error is None:
        return ""
    own = "".join(traceback.format_exception_only(error)) + repr(error.args)
    return own + chained(error.__cause__) + chained(error.__context__)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    scheme=st.sampled_from(WITH_SESSION),
    before=st.text(":/?#@[]% \n1a\0\ud800", max_size=4),
    after=st.text(":/?#@[]% \n1a\0\ud800", max_size=4),
    tail=st.sampled_from(["h.example", "h.example:5/1", "", "h e", ":x", "h.example/%ff", "[::1"]),
)
def test_no_error_shows_any_part_of_a_password(
    scheme: str, before: str, after: str, tail: str
) -> None:
    """G9. Nor does the result, if the URL can be read after all."""
    error: ConfigError | None = None
    parsed: Parsed | None = None
    try:
        parsed = parse_url(f"{scheme}://joe:{before}canary{after}@{tail}")
    except ConfigError as refusal:
        error = refusal
    assert "canary" not in f"{chained(error)} {parsed!r}"


@pytest.mark.parametrize("scheme", ["http", "redis", "postgresql", "tcp", "unix"])
@pytest.mark.parametrize(
    "rest", ["good.example\\@evil.example:1", "joe:can\\ary@h.example:1", "h.example\\x:1"]
)
def test_f157_a_backslash_before_the_path_is_refused(scheme: str, rest: str) -> None:
    with pytest.raises(ConfigError, match="must percent-encode a backslash") as caught:
        parse_url(f"{scheme}://{rest}")
    assert "example" not in str(caught.value)
    assert "ary" not in str(caught.value).replace("binary", "")


def test_f157_an_encoded_backslash_is_part_of_the_password() -> None:
    assert login_of("redis://joe:a%5Cb@h.example") != login_of("redis://joe:ab@h.example")


# ── what libpq would understand ─────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://joe:canary@/shop?host=/run/postgresql",
        "postgresql:///shop?host=%2Frun%2Fpostgresql&port=5433",
        "postgres://joe:canary@%2Frun%2Fpostgresql/shop",
        "postgres://joe:canary@%2Frun%2Fpostgresql:5433/shop",
    ],
)
def test_a_socket_in_libpqs_way_is_answered_with_the_endpoint_for_it(url: str) -> None:
    with pytest.raises(ConfigError, match=r"write UnixEndpoint\(path, login=Login\(user") as caught:
        parse_url(url)
    assert "canary" not in str(caught.value)


def test_a_host_as_an_option_is_still_misplaced() -> None:
    with pytest.raises(ConfigError, match="the URL sets host as an option: put it before the ?"):
        parse_url("postgresql://db.example/shop?host=other.example")

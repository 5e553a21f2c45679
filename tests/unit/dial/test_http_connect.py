from __future__ import annotations

import base64
from collections.abc import Iterable

import pytest
import trio

from conpool._dial.http_connect import MAX_HEAD, request_tunnel
from conpool._errors.connect import ProxyError
from conpool._values.endpoint import Endpoint
from conpool._values.proxy import HTTPProxy
from conpool._values.tls import TLS
from tests._proxies import Script, one_by_one

OK = b"HTTP/1.1 200 Connection established\r\n\r\n"
PROXY = HTTPProxy("proxy.example", 3128)
PLAIN = Endpoint("db.example", 5432, proxy=PROXY)
SECURE = Endpoint("db.example", 5432, tls=True, proxy=PROXY)
both = pytest.mark.parametrize("endpoint", [PLAIN, SECURE], ids=["plain", "tls"])


async def ask(
    endpoint: Endpoint, reply: bytes | Iterable[bytes], *, hang_up: bool = False
) -> Script:
    pieces = [reply] if isinstance(reply, bytes) else reply
    script = Script((0, pieces), hang_up=hang_up)
    await script.run(lambda stream: request_tunnel(stream, endpoint))
    return script


async def refused(
    endpoint: Endpoint, reply: bytes | Iterable[bytes], *, hang_up: bool = False
) -> str:
    with pytest.raises(ProxyError) as caught:
        await ask(endpoint, reply, hang_up=hang_up)
    assert caught.value.phase == "proxy"
    assert caught.value.endpoint == endpoint
    return str(caught.value)


# ── what is asked ───────────────────────────────────────────────────────────────


@both
async def test_it_asks_for_the_target_and_sends_nothing_else(endpoint: Endpoint) -> None:
    script = await ask(endpoint, OK)
    assert script.received == (b"CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n")


async def test_an_ipv6_address_has_brackets() -> None:
    script = await ask(Endpoint("2001:db8::1", 80, proxy=PROXY), OK)
    assert script.received.startswith(
        b"CONNECT [2001:db8::1]:80 HTTP/1.1\r\nHost: [2001:db8::1]:80"
    )


@pytest.mark.parametrize(
    ("password", "credentials"), [("s€cret", "joe:s€cret"), (None, "joe:"), ("a:b", "joe:a:b")]
)
async def test_it_sends_basic_credentials(password: str | None, credentials: str) -> None:
    proxy = HTTPProxy("proxy.example", 3128, username="joe", password=password)
    script = await ask(Endpoint("db.example", 1, proxy=proxy), OK)
    header = b"Proxy-Authorization: Basic " + base64.b64encode(credentials.encode())
    assert header in script.received.split(b"\r\n")


# ── what is answered ────────────────────────────────────────────────────────────


@both
@pytest.mark.parametrize(
    "reply",
    [
        OK,
        b"HTTP/1.0 200 OK\r\nProxy-Agent: x\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    ],
)
async def test_any_2xx_opens_the_tunnel(endpoint: Endpoint, reply: bytes) -> None:
    script = await ask(endpoint, reply)
    assert await script.left_over() == b""


@both
async def test_f120_the_answer_may_come_byte_by_byte(endpoint: Endpoint) -> None:
    script = await ask(endpoint, one_by_one(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK))
    assert await script.left_over() == b""


@both
@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\nsorry", "the proxy answered 502 Bad Gateway"),
        (b"HTTP/1.1 503\r\n\r\n", "the proxy answered 503"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "the proxy answered 302 Found"),
        (b"HTTP/1.1 403 No!\r\nContent-Length: 0\r\n\r\n", "the proxy answered 403 No!"),
    ],
)
async def test_f120_any_other_status_is_refused(
    endpoint: Endpoint, reply: bytes, said: str
) -> None:
    assert said in await refused(endpoint, reply)


async def test_f120_a_long_phrase_is_cut() -> None:
    assert len(await refused(PLAIN, b"HTTP/1.1 500 " + b"x" * 5000 + b"\r\n\r\n")) < 300


async def test_f120_407_says_whether_credentials_were_sent() -> None:
    reply = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
    assert "407 Proxy Authentication Required (it wants credentials)" in await refused(PLAIN, reply)
    proxy = HTTPProxy("proxy.example", 3128, username="joe", password="hunter2")
    said = await refused(Endpoint("db.example", 1, proxy=proxy), reply)
    assert "407 Proxy Authentication Required (it did not accept the credentials)" in said


async def test_f120_g9_no_error_shows_the_credentials() -> None:
    proxy = HTTPProxy("proxy.example", 3128, username="joe", password="hunter2")
    with pytest.raises(ProxyError) as caught:
        await ask(Endpoint("db.example", 1, proxy=proxy), b"HTTP/1.1 407 No\r\n\r\n")
    for text in (str(caught.value), repr(caught.value)):
        assert "hunter2" not in text
        assert base64.b64encode(b"joe:hunter2").decode() not in text


@both
@pytest.mark.parametrize("size", [MAX_HEAD + 1, 65_536])
async def test_f120_a_head_without_end_is_refused(endpoint: Endpoint, size: int) -> None:
    reply = b"HTTP/1.1 200 OK\r\nX: " + b"x" * size
    said = await refused(endpoint, [reply[i : i + 1000] for i in range(0, len(reply), 1000)])
    assert "more than 16384 bytes" in said or "not HTTP" in said


@both
async def test_f120_interim_answers_without_end_are_refused(endpoint: Endpoint) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    said = await refused(endpoint, [interim] * (2 * MAX_HEAD // len(interim)))
    assert "more than 16384 bytes" in said


@both
@pytest.mark.parametrize(
    "reply", [b"HTTP/9 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nno header\r\n\r\n"]
)
async def test_f120_what_is_not_quite_http_is_refused(endpoint: Endpoint, reply: bytes) -> None:
    assert "the proxy's answer is not HTTP" in await refused(endpoint, reply)


@both
@pytest.mark.parametrize(
    "reply", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTML", b"\x15\x03\x01\x00\x02\x02\x28"]
)
async def test_f120_another_protocol_is_noticed_at_once(endpoint: Endpoint, reply: bytes) -> None:
    assert "the proxy does not speak HTTP" in await refused(endpoint, reply)


@both
@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\nX: y\r\n"])
async def test_f120_a_proxy_that_hangs_up_before_it_answered(
    endpoint: Endpoint, reply: bytes
) -> None:
    assert "hung up before it answered" in await refused(endpoint, reply, hang_up=True)


# ── bytes after the blank line ──────────────────────────────────────────────────


async def test_f120_g7_bytes_before_tls_are_refused() -> None:
    assert "bytes before TLS began" in await refused(SECURE, OK + b"injected")


@pytest.mark.parametrize(
    "reply", [[OK + b"220 hello\r\n"], list(one_by_one(OK + b"220 hello\r\n"))]
)
async def test_f120_early_bytes_of_a_plain_target_are_delivered_once(reply: list[bytes]) -> None:
    script = Script((0, reply))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script.play)
        await request_tunnel(script.client, PLAIN)
        assert await script.left_over() == b"220 hello\r\n"
        nursery.cancel_scope.cancel()


async def test_tls_with_a_context_of_its_own_is_tls_too() -> None:
    endpoint = Endpoint("db.example", 1, tls=TLS(), proxy=PROXY)
    assert "bytes before TLS began" in await refused(endpoint, OK + b"\x16")

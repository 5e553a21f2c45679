from __future__ import annotations

import errno
import socket

import pytest
import trio

from conpool._dial.socks5 import request_tunnel
from conpool._errors.connect import ProxyError
from conpool._values.endpoint import Endpoint
from conpool._values.proxy import SOCKS5Proxy
from tests._proxies import Script, one_by_one

PROXY = SOCKS5Proxy("proxy.example", 1080)
LOGIN = SOCKS5Proxy("proxy.example", 1080, username="joe", password="hunter2")
ENDPOINT = Endpoint("db.example", 5432, proxy=PROXY)
GREETING = b"\x05\x01\x00"
REQUEST = b"\x05\x01\x00\x03\x0adb.example\x15\x38"
GRANTED = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x12\x34"


async def ask(script: Script, endpoint: Endpoint = ENDPOINT) -> Script:
    await script.run(lambda stream: request_tunnel(stream, endpoint))
    return script


async def refused(script: Script, endpoint: Endpoint = ENDPOINT) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        await ask(script, endpoint)
    assert caught.value.phase == "proxy"
    assert caught.value.endpoint == endpoint
    return caught.value


def answering(reply: bytes, *, hang_up: bool = False) -> Script:
    """A proxy that wants no login and answers the request with `reply`."""
    return Script((3, [b"\x05\x00"]), (len(REQUEST), [reply]), hang_up=hang_up)


# ── what is asked ───────────────────────────────────────────────────────────────


async def test_a_name_is_sent_for_the_proxy_to_resolve() -> None:
    script = await ask(answering(GRANTED))
    assert script.received == GREETING + REQUEST
    assert await script.left_over() == b""


@pytest.mark.parametrize(
    ("host", "sent"),
    [
        ("192.0.2.1", b"\x01\xc0\x00\x02\x01"),
        ("2001:db8::1", b"\x04" + socket.inet_pton(socket.AF_INET6, "2001:db8::1")),
        ("bücher.example", b"\x03\x15xn--bcher-kva.example"),
    ],
)
async def test_each_kind_of_address_is_sent_in_its_own_way(host: str, sent: bytes) -> None:
    expected = b"\x05\x01\x00" + sent + b"\x00\x50"
    script = Script((3, [b"\x05\x00"]), (len(expected), [GRANTED]))
    await ask(script, Endpoint(host, 80, proxy=PROXY))
    assert script.received == GREETING + expected


async def test_credentials_are_offered_and_sent_if_they_are_wanted() -> None:
    login = b"\x01\x03joe\x07hunter2"
    endpoint = Endpoint("db.example", 5432, proxy=LOGIN)
    script = Script((4, [b"\x05\x02"]), (len(login), [b"\x01\x00"]), (len(REQUEST), [GRANTED]))
    await ask(script, endpoint)
    assert script.received == b"\x05\x02\x00\x02" + login + REQUEST


async def test_credentials_are_not_sent_to_a_proxy_that_wants_none() -> None:
    endpoint = Endpoint("db.example", 5432, proxy=LOGIN)
    script = Script((4, [b"\x05\x00"]), (len(REQUEST), [GRANTED]))
    await ask(script, endpoint)
    assert b"hunter2" not in script.received


# ── what is answered ────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "granted",
    [
        GRANTED,
        b"\x05\x00\x00\x04" + b"\x00" * 16 + b"\x12\x34",
        b"\x05\x00\x00\x03\x05proxy\x12\x34",
        b"\x05\x00\x00\x03\x00\x00\x00",
    ],
)
async def test_f120_nothing_is_read_beyond_the_answer(granted: bytes) -> None:
    for pieces in ([granted + b"220 hello"], list(one_by_one(granted + b"220 hello"))):
        script = Script((3, [b"\x05\x00"]), (len(REQUEST), pieces))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(script.play)
            await request_tunnel(script.client, ENDPOINT)
            assert await script.left_over() == b"220 hello"
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("code", "said", "number"),
    [
        (1, "general failure", None),
        (2, "connection not allowed by its rules", errno.EACCES),
        (3, "network unreachable", errno.ENETUNREACH),
        (4, "host unreachable", errno.EHOSTUNREACH),
        (5, "connection refused", errno.ECONNREFUSED),
        (6, "time to live expired", None),
        (7, "command not supported", None),
        (8, "address type not supported", None),
        (9, "no code of SOCKS5", None),
        (255, "no code of SOCKS5", None),
    ],
)
async def test_f120_each_refusal_is_named(code: int, said: str, number: int | None) -> None:
    reply = bytes([5, code, 0, 1]) + b"\x00" * 6
    error = await refused(answering(reply))
    assert f"the proxy answered {code}: {said}" in str(error)
    assert error.errno == number


async def test_f120_a_refusal_may_be_cut_short() -> None:
    assert "connection refused" in str(await refused(answering(b"\x05\x05\x00\x01", hang_up=True)))


@pytest.mark.parametrize("reply", [b"\x04\x00\x00\x01", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_f120_a_wrong_version_byte(reply: bytes) -> None:
    said = f"does not speak SOCKS5 (version byte {reply[0]})"
    assert said in str(await refused(Script((3, [reply]))))
    assert said in str(await refused(answering(reply)))


async def test_f120_an_address_of_no_known_type() -> None:
    assert "no known type (9)" in str(await refused(answering(b"\x05\x00\x00\x09\x00\x00")))


@pytest.mark.parametrize("method", [1, 2, 255])
async def test_f120_a_proxy_that_wants_another_login(method: int) -> None:
    error = await refused(Script((3, [bytes([5, method])])))
    assert "accepts no login that was offered; it may want credentials" in str(error)
    if method != 2:
        endpoint = Endpoint("db.example", 5432, proxy=LOGIN)
        error = await refused(Script((4, [bytes([5, method])])), endpoint)
        assert str(error).endswith("accepts no login that was offered")


@pytest.mark.parametrize("reply", [b"\x01\x01", b"\x01\xff", b"\x05\x01", b"\x02\x00"])
async def test_f120_g9_wrong_credentials_are_not_shown(reply: bytes) -> None:
    endpoint = Endpoint("db.example", 5432, proxy=LOGIN)
    error = await refused(Script((4, [b"\x05\x02"]), (13, [reply])), endpoint)
    assert "did not accept the credentials" in str(error)
    assert "hunter2" not in str(error) + repr(error)


async def test_some_proxies_answer_a_login_with_the_wrong_version() -> None:
    endpoint = Endpoint("db.example", 5432, proxy=LOGIN)
    await ask(Script((4, [b"\x05\x02"]), (13, [b"\x05\x00"]), (len(REQUEST), [GRANTED])), endpoint)


@pytest.mark.parametrize(
    "script",
    [
        Script((3, [b""]), hang_up=True),
        Script((3, [b"\x05"]), hang_up=True),
        answering(b"\x05\x00\x00", hang_up=True),
        answering(b"\x05\x00\x00\x03", hang_up=True),
        answering(GRANTED[:-1], hang_up=True),
    ],
)
async def test_f120_a_proxy_that_hangs_up_before_it_answered(script: Script) -> None:
    error = await refused(script)
    assert "hung up before it answered" in str(error)
    assert error.errno == errno.ECONNRESET

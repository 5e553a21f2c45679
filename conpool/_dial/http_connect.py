"""HTTP CONNECT (RFC 9110, section 9.3.6), spoken by h11.

The target's first bytes may come in one piece with the proxy's answer.

- A plain-text target may speak first; those bytes belong to the caller. A stream cannot take back a
  byte, so the answer is read byte by byte. That costs some hundred reads once in the life of a
  connection. A stream with a buffer would instead concern each probe, half-close and `detach`.
- A TLS target says nothing before the ClientHello, so the answer is read in large pieces, and any
  byte behind it is an injection (libpq once took such bytes for the server's, CVE-2021-23222).
"""

from __future__ import annotations

import base64
import errno
from typing import Final

import h11
import trio

from conpool._errors.connect import ProxyError
from conpool._values.endpoint import Endpoint
from conpool._values.proxy import HTTPProxy

MAX_HEAD: Final = 16_384
"""How much of an answer is read, in bytes; interim answers (1xx) count too."""

_START: Final = b"HTTP/"
_PHRASE_SHOWN: Final = 80


async def request_tunnel(stream: trio.abc.Stream, endpoint: Endpoint) -> None:
    """Ask the proxy at the other end of `stream` for a tunnel to the endpoint.

    Raises:
        ProxyError: The proxy's answer is not HTTP, has another status than 2xx, is longer than
            `MAX_HEAD` bytes, or is followed by bytes before TLS began; or there was no answer.
        trio.BrokenResourceError: The connection broke.

    If it fails or is cancelled, the caller must close the stream.
    """
    # h11 limits each answer; the limit in `_read_answer` also counts many small interim answers.
    talk = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    try:
        request = _request(talk, endpoint)
        await stream.send_all(request)
        answer = await _read_answer(stream, talk, endpoint)
    except h11.ProtocolError as error:
        why = f"the proxy's answer is not HTTP: {error}"
        raise ProxyError(why, endpoint=endpoint, phase="proxy") from error
    if not 200 <= answer.status_code < 300:
        raise _said_no(endpoint, answer)
    if talk.trailing_data[0]:
        why = "the proxy sent bytes before TLS began"
        raise ProxyError(why, endpoint=endpoint, phase="proxy")


def _request(talk: h11.Connection, endpoint: Endpoint) -> bytes:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    target = f"{host}:{endpoint.port}"
    headers = [("Host", target)]
    proxy = endpoint.proxy
    assert isinstance(proxy, HTTPProxy)
    if proxy.username is not None:
        credentials = f"{proxy.username}:{proxy.password or ''}".encode()
        basic = base64.b64encode(credentials).decode("ascii")
        headers.append(("Proxy-Authorization", f"Basic {basic}"))
    request = h11.Request(method="CONNECT", target=target, headers=headers)
    return (talk.send(request) or b"") + (talk.send(h11.EndOfMessage()) or b"")


async def _read_answer(
    stream: trio.abc.Stream, talk: h11.Connection, endpoint: Endpoint
) -> h11.Response:
    size = MAX_HEAD if endpoint.tls is not None else 1
    received = 0
    start = b""
    while True:
        event = talk.next_event()
        if isinstance(event, h11.Response):
            return event
        if event is not h11.NEED_DATA:
            continue  # an interim answer
        if received >= MAX_HEAD:
            why = f"the proxy's answer has more than {MAX_HEAD} bytes"
            raise ProxyError(why, endpoint=endpoint, phase="proxy")
        data = await stream.receive_some(size)
        if not data:
            why = "the proxy hung up before it answered"
            raise ProxyError(why, endpoint=endpoint, phase="proxy", errno=errno.ECONNRESET)
        received += len(data)
        start = (start + data)[: len(_START)]
        if not _START.startswith(start):
            # h11 would wait for a blank line, which an SSH or database server never sends.
            raise ProxyError("the proxy does not speak HTTP", endpoint=endpoint, phase="proxy")
        talk.receive_data(bytes(data))


def _said_no(endpoint: Endpoint, answer: h11.Response) -> ProxyError:
    phrase = answer.reason.decode("latin-1")[:_PHRASE_SHOWN]
    said = f"the proxy answered {answer.status_code} {phrase}".rstrip()
    if answer.status_code == 407:
        proxy = endpoint.proxy
        had_some = isinstance(proxy, HTTPProxy) and proxy.username is not None
        said += " (it did not accept the credentials)" if had_some else " (it wants credentials)"
    return ProxyError(said, endpoint=endpoint, phase="proxy")

"""The parser for simple exchanges agrees with h11 wherever it does not leave a case to it."""

from __future__ import annotations

from typing import Any

import h11
import pytest
from hypothesis import given, settings, strategies as st

from conpool.contrib._http.simple import encode_request, parse_answer

HOST = (b"Host", b"example.org")


def by_h11(method: bytes, target: bytes, headers: Any, body: bytes) -> bytes:
    http = h11.Connection(h11.CLIENT)
    request = http.send(h11.Request(method=method, target=target, headers=headers)) or b""
    request += (http.send(h11.Data(data=body)) or b"") if body else b""
    return request + (http.send(h11.EndOfMessage()) or b"")


@pytest.mark.parametrize("body", [b"", b"abc"])
def test_a_request_is_encoded_as_h11_does(body: bytes) -> None:
    headers = [(b"Accept", b"*/*"), HOST, (b"Connection", b"keep-alive")]
    headers += [(b"Content-Length", b"3")] if body else []
    encoded = encode_request(b"POST", b"/a?b", headers, body)
    assert encoded == by_h11(b"POST", b"/a?b", headers, body)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([], b""),
        ([HOST, HOST], b""),
        ([HOST], b"abc"),
        ([HOST, (b"Content-Length", b"4")], b"abc"),
        ([HOST, (b"Content-Length", b"3"), (b"Content-Length", b"3")], b"abc"),
        ([HOST, (b"Transfer-Encoding", b"chunked")], b"abc"),
        ([HOST, (b"Connection", b"close")], b""),
        ([HOST, (b"Upgrade", b"echo")], b""),
        ([HOST, (b"Expect", b"100-continue")], b""),
        ([HOST, (b"X", b"a\r\nY: b")], b""),
        ([HOST, (b"X", b"a\nb")], b""),
        ([HOST, (b"X", b"a\0b")], b""),
        ([HOST, (b"X Y", b"a")], b""),
        ([HOST, (b"X: a\r\nY", b"a")], b""),
        ([(b"Host", b"a\r\nX: b")], b""),
    ],
)
def test_other_requests_are_left_to_h11(headers: Any, body: bytes) -> None:
    assert encode_request(b"GET", b"/", headers, body) is None


@pytest.mark.parametrize(
    ("method", "target"),
    [(b"HEAD", b"/"), (b"CONNECT", b"a:1"), (b"GE T", b"/"), (b"GET", b"/ a"), (b"GET", b"/\r\nX")],
)
def test_other_starts_are_left_to_h11(method: bytes, target: bytes) -> None:
    assert encode_request(method, target, [HOST], b"") is None


ANSWER = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length:  3 \r\n\r\nabcd"


def test_an_answer_is_read_as_h11_does() -> None:
    answer = parse_answer(bytearray(ANSWER))
    assert answer == (200, b"OK", [(b"Server", b"x"), (b"Content-Length", b"3")], 3, b"abcd")


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 103 OK\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 204 OK\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 304 OK\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 3\r\n\r\n",
    ],
)
def test_other_answers_are_left_to_h11(data: bytes) -> None:
    assert parse_answer(data) is None


PIECES = st.sampled_from(
    [
        *(
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 404 \r\n",
            b"HTTP/1.1 200\r\n",
            b"Content-Length: 3\r\n",
        ),
        *(
            b"Content-Length:3\r\n",
            b"X: y\r\n",
            b"X:\t y \r\n",
            b" folded\r\n",
            b"\r\n",
            b"\n",
            b"abc",
        ),
        *(b"Transfer-Encoding: chunked\r\n", b"Connection: keep-alive\r\n", b": x\r\n", b"X y\r\n"),
    ]
)


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=7).map(lambda rest: b"".join([b"HTTP/1.1 200 OK\r\n", *rest])))
def test_what_is_read_here_h11_reads_in_the_same_way(data: bytes) -> None:
    answer = parse_answer(data)
    if answer is None:
        return
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[HOST]))
    http.send(h11.EndOfMessage())
    http.receive_data(data)
    head = http.next_event()
    assert isinstance(head, h11.Response)
    assert (answer.status, answer.reason) == (head.status_code, head.reason)
    assert answer.headers == head.headers.raw_items()
    body = http.next_event()
    if isinstance(body, h11.Data):
        assert body.data == answer.rest[: answer.length]
    else:
        assert not (answer.length and answer.rest)

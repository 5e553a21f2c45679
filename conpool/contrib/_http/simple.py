"""The common exchange, at a quarter of h11's cost: it is a third of a request's time otherwise.

Only what needs no thought is done here, and anything else is left to h11, which then sees the same
bytes from the first one on:

- a request whose body is in memory, with neither `Connection` options, `Expect` nor `Upgrade`;
- an HTTP/1.1 answer whose whole head has come in one piece, with one `Content-Length` and no
  `Transfer-Encoding`, on a connection that stays open.

The grammar is h11's, in which a byte that is out of place is refused, not mended.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from conpool.contrib._http.outgoing import Header

_TOKEN: Final = rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]+"
_TEXT: Final = rb"[\t\x20-\x7e\x80-\xff]*"
_START: Final = re.compile(_TOKEN + rb" [\x21-\x7e]+ HTTP/1\.1")
_FIELDS: Final = re.compile(rb"(?:" + _TOKEN + rb":" + _TEXT + rb"\r\n)*")
_ANSWER: Final = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9][0-9]) (" + _TEXT + rb")\r\n((?:" + _TOKEN + rb":" + _TEXT + rb"\r\n)*)"
)
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")

_BODILESS: Final = frozenset({b"204", b"304"})
_SPECIAL_METHODS: Final = frozenset({b"HEAD", b"CONNECT"})
_SPECIAL: Final = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer"})


class SimpleAnswer(NamedTuple):
    """The head of an answer, and the bytes behind it."""

    status: int
    reason: bytes
    headers: list[Header]
    length: int
    rest: bytes


def encode_request(
    method: bytes, target: bytes, headers: list[Header], body: bytes
) -> bytes | None:
    """Return the bytes of a request; None if h11 must look at it."""
    if method in _SPECIAL_METHODS:
        return None
    hosts = lengths = 0
    host_line = b""
    lines: list[bytes] = []
    for name, value in headers:
        lower = name.lower()
        if lower == b"host":
            hosts += 1
            host_line = b"%s: %s\r\n" % (name, value)
            continue
        if lower == b"content-length":
            lengths += 1
            if value != b"%d" % len(body):
                return None
        elif lower in _SPECIAL or (lower == b"connection" and value.lower() != b"keep-alive"):
            return None
        lines.append(b"%s: %s\r\n" % (name, value))
    fields = host_line + b"".join(lines)
    start = b"%s %s HTTP/1.1" % (method, target)
    is_framed = lengths == 1 if body else lengths <= 1
    if (
        hosts != 1
        or not is_framed
        or fields.count(b"\r") != len(headers)  # a value with a line of its own
        or _START.fullmatch(start) is None
        or _FIELDS.fullmatch(fields) is None
    ):
        return None
    return b"%s\r\n%s\r\n%s" % (start, fields, body)


def parse_answer(data: bytes | bytearray) -> SimpleAnswer | None:
    """Return the answer that begins with `data`; None if h11 must look at it."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    found = _ANSWER.fullmatch(data, 0, end + 2)
    if found is None or (status := found[1]) in _BODILESS:
        return None
    length: int | None = None
    headers: list[Header] = []
    for line in found[3].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        lower = name.lower()
        if lower == b"content-length":
            if length is not None or _LENGTH.fullmatch(value) is None:
                return None
            length = int(value)
        elif lower == b"transfer-encoding" or (
            lower == b"connection" and value.lower() != b"keep-alive"
        ):
            return None
        headers.append((bytes(name), bytes(value)))
    if length is None:
        return None
    return SimpleAnswer(int(status), bytes(found[2]), headers, length, bytes(data[end + 4 :]))

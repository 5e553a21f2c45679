"""As much of four protocols as it takes to use a real server over a pooled connection."""

from __future__ import annotations

import struct

import scramp
from trio.abc import Stream

from conpool import Connection
from tests.servers import MariaDB, Postgres, startup_message
from tests.support.loopback_servers import receive_exactly


class ServerError(Exception):
    """The server refused; the message is the server's."""


# ── Redis ───────────────────────────────────────────────────────────────────────


async def read_line(stream: Stream) -> bytes:
    """One line of a reply, and not a byte more."""
    line = b""
    while not line.endswith(b"\r\n"):
        data = await stream.receive_some(1)
        if not data:
            raise ServerError(f"the server hung up after {line!r}")
        line += data
    return line[:-2]


async def redis(stream: Stream, *words: bytes) -> bytes:
    """Run a command whose reply is a line or a string."""
    parts = [b"*%d" % len(words)]
    for word in words:
        parts += [b"$%d" % len(word), word]
    await stream.send_all(b"\r\n".join([*parts, b""]))
    return await redis_reply(stream)


async def redis_reply(stream: Stream) -> bytes:
    line = await read_line(stream)
    if line.startswith(b"-"):
        raise ServerError(line.decode())
    if not line.startswith(b"$"):
        return line[1:]
    return (await receive_exactly(stream, int(line[1:]) + 2))[:-2]


# ── PostgreSQL ──────────────────────────────────────────────────────────────────


async def postgres_message(stream: Stream) -> tuple[bytes, bytes]:
    head = await receive_exactly(stream, 5)
    kind, length = struct.unpack("!ci", head)
    body = await receive_exactly(stream, length - 4)
    if kind == b"E":
        fields = [field.decode() for field in body.split(b"\0") if field]
        raise ServerError(" ".join(fields))
    return kind, body


async def postgres_log_in(stream: Stream, server: Postgres, password: str | None = None) -> None:
    await stream.send_all(startup_message(server.user, server.database))
    await postgres_message(stream)
    scram = scramp.ScramClient(["SCRAM-SHA-256"], server.user, password or server.password)
    first = scram.get_client_first().encode()
    await _send_password(stream, b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first)
    _, body = await postgres_message(stream)
    scram.set_server_first(body[4:].decode())
    await _send_password(stream, scram.get_client_final().encode())
    await _read_until_ready(stream)


async def postgres(stream: Stream, sql: str) -> list[bytes]:
    """Run a statement; return the first column of its rows."""
    text = sql.encode() + b"\0"
    await stream.send_all(b"Q" + struct.pack("!i", len(text) + 4) + text)
    return await _read_until_ready(stream)


async def _send_password(stream: Stream, text: bytes) -> None:
    await stream.send_all(b"p" + struct.pack("!i", len(text) + 4) + text)


async def _read_until_ready(stream: Stream) -> list[bytes]:
    rows = []
    while True:
        kind, body = await postgres_message(stream)
        if kind == b"D":
            (length,) = struct.unpack_from("!i", body, 2)
            rows.append(body[6 : 6 + length])
        if kind == b"Z":
            return rows


# ── MariaDB ─────────────────────────────────────────────────────────────────────

_CAPABILITIES = 0x1 | 0x200 | 0x8000 | 0x80000  # long password, 4.1, secure, plugins
_UTF8 = 45


async def mariadb_packet(stream: Stream) -> bytes:
    head = await receive_exactly(stream, 4)
    body = await receive_exactly(stream, int.from_bytes(head[:3], "little"))
    if body.startswith(b"\xff"):
        raise ServerError(f"{int.from_bytes(body[1:3], 'little')} {body[3:].decode()}")
    return body


async def mariadb_log_in(stream: Stream, server: MariaDB) -> None:
    await mariadb_packet(stream)
    answer = struct.pack("<IIB23x", _CAPABILITIES, 1 << 24, _UTF8)
    answer += server.user.encode() + b"\0\0" + b"mysql_native_password\0"
    await stream.send_all(len(answer).to_bytes(3, "little") + b"\1" + answer)
    assert (await mariadb_packet(stream)).startswith(b"\0")


async def mariadb(stream: Stream, sql: str) -> None:
    """Run a statement that has no result."""
    await _send_statement(stream, sql)
    assert (await mariadb_packet(stream)).startswith(b"\0")


async def mariadb_value(stream: Stream, sql: str) -> bytes:
    """Run a statement whose result is one short text."""
    await _send_statement(stream, sql)
    assert await mariadb_packet(stream) == b"\1", "one column"
    await mariadb_packet(stream)  # its name, and so on
    assert (await mariadb_packet(stream)).startswith(b"\xfe"), "the end of the columns"
    row = await mariadb_packet(stream)
    assert (await mariadb_packet(stream)).startswith(b"\xfe"), "the end of the rows"
    return row[1 : 1 + row[0]]


async def _send_statement(stream: Stream, sql: str) -> None:
    text = b"\3" + sql.encode()
    await stream.send_all(len(text).to_bytes(3, "little") + b"\0" + text)


# ── HTTP ────────────────────────────────────────────────────────────────────────


async def get(conn: Connection[None], path: str = "/") -> bytes:
    """GET; the connection is kept unless the server says that it will close it."""
    await conn.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    status = await read_line(conn)
    if not status.startswith(b"HTTP/1.1 200"):
        raise ServerError(status.decode())
    length = 0
    while line := await read_line(conn):
        name, _, value = line.lower().partition(b":")
        if name == b"content-length":
            length = int(value)
        if name == b"connection" and value.strip() == b"close":
            conn.retire()
    return await receive_exactly(conn, length)

"""Thumbnails of images that are kept in MariaDB.

CREATE TABLE images (id INT PRIMARY KEY, width INT, height INT, pixels MEDIUMBLOB)

`pixels` has three bytes for each pixel, row by row.
"""

from __future__ import annotations

import struct
import zlib

SIDE = 32
"""The longer side of a thumbnail."""


def shrink(width: int, height: int, pixels: bytes) -> bytes:
    """Return a PNG that has every n-th pixel of every n-th row."""
    step = max(1, -(-max(width, height) // SIDE))
    rows = [pixels[row * 3 * width : (row + 1) * 3 * width] for row in range(0, height, step)]
    thin = [b"".join(row[at : at + 3] for at in range(0, len(row), 3 * step)) for row in rows]
    header = struct.pack("!IIBBBBB", len(thin[0]) // 3, len(thin), 8, 2, 0, 0, 0)
    lines = b"".join(b"\0" + row for row in thin)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

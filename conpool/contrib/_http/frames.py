"""Cuts an HTTP/2 stream into frames, and looks at each before h2 does.

h2 answers every PING and SETTINGS, and takes a GOAWAY for the end of all streams. Here a peer that
sends more of such frames than any honest one would is refused, and a GOAWAY is taken out, so that
the streams that the peer still serves can end.
"""

from __future__ import annotations

from typing import Final, NamedTuple, final

HEADER: Final = 9
MAX_FRAME: Final = 16_384
"""What we let peers send in one frame: the least that RFC 9113 allows (section 4.2)."""

MAX_IDLE_FRAMES: Final = 1_000
"""Most frames that bring no answer nearer, between two that do."""

_DATA: Final = 0x0
_HEADERS: Final = 0x1
_GOAWAY: Final = 0x7
_WINDOW_UPDATE: Final = 0x8
_PADDED: Final = 0x8
_END_STREAM: Final = 0x1


class Goaway(NamedTuple):
    """The peer takes no new streams."""

    last_stream: int
    """It will answer no stream after this one."""
    code: int


class Flood(Exception):
    """The peer sends what no honest peer would."""


@final
class FrameSplitter:
    """Keeps what has come of a frame until the rest of it has, too."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._idle_frames = 0

    def feed(self, data: bytes | bytearray) -> tuple[bytes, list[Goaway]]:
        """Return the whole frames that are there now, without those that end the connection.

        Raises:
            Flood: A frame is too long, or there are too many that are of no use.
        """
        buffer = self._buffer
        buffer += data
        whole = bytearray()
        goaways: list[Goaway] = []
        start = 0
        while len(buffer) - start >= HEADER:
            length = int.from_bytes(buffer[start : start + 3], "big")
            if length > MAX_FRAME:
                raise Flood(f"a frame of {length} bytes, and we allow {MAX_FRAME}")
            end = start + HEADER + length
            if end > len(buffer):
                break
            kind, flags = buffer[start + 3], buffer[start + 4]
            padding = buffer[start + HEADER] + 1 if length and flags & _PADDED else 0
            self._count(kind, flags, length - padding)
            if kind == _GOAWAY and length >= 8:
                body = start + HEADER
                last = int.from_bytes(buffer[body : body + 4], "big") & 0x7FFFFFFF
                goaways.append(Goaway(last, int.from_bytes(buffer[body + 4 : body + 8], "big")))
            else:
                whole += buffer[start:end]
            start = end
        del buffer[:start]
        return bytes(whole), goaways

    def _count(self, kind: int, flags: int, length: int) -> None:
        """Count what brings no answer nearer; an empty DATA frame is of use only as the last."""
        is_of_use = kind == _HEADERS or (kind == _DATA and (length > 0 or flags & _END_STREAM))
        if is_of_use:
            self._idle_frames = max(0, self._idle_frames - 10)
        elif kind != _WINDOW_UPDATE:
            self._idle_frames += 1
        if self._idle_frames > MAX_IDLE_FRAMES:
            raise Flood(f"more than {MAX_IDLE_FRAMES} frames that are of no use")

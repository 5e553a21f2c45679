"""Puts TLS over a stream in such a way that the pool can probe it later, without waiting.

`trio.SSLStream` cannot say without an await what is pending. But all bytes that it reads go
through a memory BIO, which it hands to `SSLContext.wrap_bio`. A stand-in for the context (`Tap`)
sees that call and keeps the BIO and the `SSLObject`. With both, the probe can decrypt the bytes in
the socket at once.
"""

from __future__ import annotations

import ssl
from typing import Any, Final, TypeAlias, cast, final
from weakref import WeakKeyDictionary

import trio

from conpool._values.tls import TLS

EncryptedStream: TypeAlias = "trio.SSLStream[trio.abc.Stream]"

HIDES_TRUNCATION: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).options & getattr(
    ssl, "OP_IGNORE_UNEXPECTED_EOF", 0
)
"""An option that Python before 3.11.4 sets on every context.

With it, a stream that ends without TLS's goodbye looks like one that ended properly.
"""


@final
class Tap:
    """Keeps the two objects through which all bytes of one TLS connection arrive."""

    __slots__ = ("_context", "incoming", "ssl_object")

    incoming: ssl.MemoryBIO
    ssl_object: ssl.SSLObject

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **options: Any
    ) -> ssl.SSLObject:
        """Call the context's own `wrap_bio`, and keep its BIO and its result."""
        self.incoming = incoming
        context = self._context
        usual = context.options
        if usual & HIDES_TRUNCATION:
            context.options = usual & ~HIDES_TRUNCATION
        try:
            self.ssl_object = context.wrap_bio(incoming, outgoing, **options)
        finally:
            if usual & HIDES_TRUNCATION:  # the context is the user's: leave it as it was
                context.options = usual
        return self.ssl_object


_taps: WeakKeyDictionary[EncryptedStream, Tap] = WeakKeyDictionary()


async def encrypt(
    stream: trio.abc.Stream, tls: TLS, server_hostname: str | None
) -> EncryptedStream:
    """Put TLS over `stream` and complete the handshake.

    If it fails or is cancelled, the caller must close `stream`.

    Raises:
        trio.BrokenResourceError: The handshake failed; its `__cause__` is the reason.
        AlpnMismatch: The peer chose none of the protocols of `tls.alpn`.
    """
    tap = Tap(tls.context)
    encrypted: EncryptedStream = trio.SSLStream(
        stream,
        cast("ssl.SSLContext", tap),
        server_hostname=server_hostname,
        https_compatible=tls.https_compatible,
    )
    await encrypted.do_handshake()
    if tls.alpn and tap.ssl_object.selected_alpn_protocol() is None:
        raise AlpnMismatch(f"the peer chose none of {', '.join(tls.alpn)}")
    _taps[encrypted] = tap
    return encrypted


class AlpnMismatch(Exception):
    """The peer speaks none of the protocols that we offered."""


def find_tap(stream: trio.abc.Stream) -> Tap | None:
    """Return the tap of a stream that `encrypt` made; None for any other."""
    if not isinstance(stream, trio.SSLStream):
        return None
    return _taps.get(cast("EncryptedStream", stream))

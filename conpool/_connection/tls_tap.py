"""TLS over a stream, made so that the pool can later look into it without waiting.

`trio.SSLStream` can say what is pending only by awaiting. But all that it reads goes through a memory BIO
that it hands to `SSLContext.wrap_bio`; a stand-in for the context sees that call, and with the BIO and
the `SSLObject` in hand the probe can decrypt what lies in the socket at once (`_probe`).
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast, final
from weakref import WeakKeyDictionary

import trio

if TYPE_CHECKING:
    from conpool._values.tls import TLS

EncryptedStream: TypeAlias = "trio.SSLStream[trio.abc.Stream]"


HIDES_TRUNCATION: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).options & getattr(
    ssl, "OP_IGNORE_UNEXPECTED_EOF", 0
)
"""What every context has, unasked, on Python before 3.11.4: an end without goodbye looks like a proper one."""


@final
class Tap:
    """The two objects through which all bytes of one TLS connection come in."""

    __slots__ = ("_context", "incoming", "ssl_object")

    incoming: ssl.MemoryBIO
    ssl_object: ssl.SSLObject

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **options: Any
    ) -> ssl.SSLObject:
        """Do what the context would, and remember what came of it."""
        self.incoming = incoming
        context = self._context
        usual = context.options
        if usual & HIDES_TRUNCATION:
            context.options = usual & ~HIDES_TRUNCATION
        try:
            self.ssl_object = context.wrap_bio(incoming, outgoing, **options)
        finally:
            if usual & HIDES_TRUNCATION:  # the context is the user's, and others share it
                context.options = usual
        return self.ssl_object


_taps: WeakKeyDictionary[EncryptedStream, Tap] = WeakKeyDictionary()


async def encrypt(
    stream: trio.abc.Stream, tls: TLS, server_hostname: str | None
) -> EncryptedStream:
    """Put TLS over `stream` and complete the handshake.

    If that fails or is cancelled, `stream` is left for the caller to close.

    Raises:
        trio.BrokenResourceError: The handshake failed; the reason is its `__cause__`.
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
    """The peer speaks none of the protocols that were asked for."""


def find_tap(stream: trio.abc.Stream) -> Tap | None:
    """Return the tap of a stream that `encrypt` made; None for any other."""
    if not isinstance(stream, trio.SSLStream):
        return None
    return _taps.get(cast("EncryptedStream", stream))

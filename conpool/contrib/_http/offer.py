"""A context of the caller's, with the protocols that one transport offers.

The protocols belong to a context, but several clients may share it and offer different ones. So
they are set just before each connection is made, which takes a copy of them.
"""

from __future__ import annotations

import ssl
from typing import Any, Final, final
from weakref import WeakValueDictionary

_offers: Final[WeakValueDictionary[tuple[int, tuple[str, ...]], Offer]] = WeakValueDictionary()


def offer(base: ssl.SSLContext, protocols: tuple[str, ...]) -> Offer:
    """Return the same context for the same arguments: transports that share a pool need it."""
    key = (id(base), protocols)  # an offer keeps its base alive, so the number stays its own
    found = _offers.get(key)
    if found is None:
        found = _offers[key] = Offer(ssl.PROTOCOL_TLS_CLIENT)
        found.check_hostname = base.check_hostname
        found.base, found.protocols = base, protocols
    return found


@final
class Offer(ssl.SSLContext):
    """Stands in for `base`, and offers `protocols`."""

    base: ssl.SSLContext
    protocols: tuple[str, ...]

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """Make a connection's object with `base`."""
        self.base.set_alpn_protocols(self.protocols)
        return self.base.wrap_bio(*args, **options)

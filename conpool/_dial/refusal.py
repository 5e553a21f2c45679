"""How it is said that a proxy did not do what it was asked."""

from __future__ import annotations

import errno

from conpool._errors.connect import ProxyError
from conpool._values.endpoint import Endpoint


def refused(endpoint: Endpoint, why: str, code: int | None = None) -> ProxyError:
    """Make the error for a proxy that did not open a tunnel to `endpoint`."""
    return ProxyError(why, endpoint=endpoint, phase="proxy", errno=code)


def hung_up(endpoint: Endpoint) -> ProxyError:
    """Make the error for a proxy that closed the connection before its answer was complete."""
    return refused(endpoint, "the proxy hung up before it answered", errno.ECONNRESET)

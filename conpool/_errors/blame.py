"""Whose fault a failed dial is: the circuit breaker counts what says something about the server.

It counts refusals, resets, time-outs, TLS that breaks off, and logins that fail; the proxy's, too,
because it is a part of the way. It does not count

1. what this machine ran out of (`LocalResourceError`);
2. a name that cannot be resolved: that is the name service's trouble, or a misspelt name, and no
   dial has reached a server;
3. a certificate that we do not trust, or a value that no pool could work with: the server is up,
   and will be refused until somebody changes the configuration.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from itertools import islice

from conpool._errors.connect import ConnectError, LocalResourceError, ResolveError
from conpool._values.config_error import ConfigError

_MOST_CAUSES = 20
"""Causes may go round in a circle."""


def is_servers(error: ConnectError) -> bool:
    """Whether `error` says something about the server."""
    if isinstance(error, LocalResourceError | ResolveError):
        return False
    causes = islice(_causes(error), _MOST_CAUSES)
    return not any(isinstance(one, ssl.SSLCertVerificationError | ConfigError) for one in causes)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__

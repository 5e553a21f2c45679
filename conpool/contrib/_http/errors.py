"""What conpool raises, in the words of the client library.

| conpool                                             | httpx                 |
| `AcquireTimeout`, phase queue or check; `QueueFull` | `PoolTimeout`         |
| `AcquireTimeout`, phase connect; `ConnectTimeout`   | `ConnectTimeout`      |
| `ProxyError`                                        | `ProxyError`          |
| any other                                           | `ConnectError`        |
"""

from __future__ import annotations

from typing import Any

from conpool._errors.connect import ConnectTimeout, ProxyError
from conpool._errors.pool import AcquireTimeout, QueueFull
from conpool._values.config_error import PoolError


def translate(lib: Any, error: PoolError) -> Exception:
    """Return the client library's error for one of conpool's; the caller makes it the cause."""
    kind: Any = lib.ConnectError
    if isinstance(error, AcquireTimeout):
        kind = lib.ConnectTimeout if error.phase == "connect" else lib.PoolTimeout
    elif isinstance(error, QueueFull):
        kind = lib.PoolTimeout
    elif isinstance(error, ConnectTimeout):
        kind = lib.ConnectTimeout
    elif isinstance(error, ProxyError):
        kind = lib.ProxyError
    translated: Exception = kind(str(error))
    return translated

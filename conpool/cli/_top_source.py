"""Asks a `StatusApp` for its numbers, over HTTP."""

from __future__ import annotations

import base64
import http.client
import json
import urllib.error
import urllib.request
from typing import Any, Final, final
from urllib.parse import SplitResult, unquote, urlencode, urlsplit, urlunsplit

_TIMEOUT: Final = 10.0
"""Seconds for one answer."""

_MOST_BYTES: Final = 50_000_000
"""Of an answer; that of 10,000 endpoints has a sixth of this."""


class Unreachable(Exception):
    """The service does not answer as a `StatusApp` does; the message says how."""


@final
class Source:
    """Where the numbers come from. Nothing shows the password of the URL.

    Raises:
        ValueError: The URL is none of a web server; the message is for people.
    """

    def __init__(self, url: str) -> None:
        parts = _split(url)
        if parts is None:
            raise ValueError("the URL must be like http://host:8000/status")
        userinfo, _, where = parts.netloc.rpartition("@")
        path = parts.path.removesuffix("/").removesuffix("/stats.json")
        self._base = urlunsplit((parts.scheme, where, f"{path}/stats.json", "", ""))
        self._headers = {"Accept": "application/json"}
        if userinfo:
            token = base64.b64encode(unquote(userinfo).encode()).decode()
            self._headers["Authorization"] = f"Basic {token}"

    def fetch(self, rows: int, sort: str, match: str) -> dict[str, Any]:
        """Return the numbers of the endpoints that come first.

        Raises:
            Unreachable: There is no answer, or not one of a `StatusApp`.
        """
        query = urlencode({"top": rows, "sort": sort, "match": match})
        request = urllib.request.Request(f"{self._base}?{query}", headers=self._headers)  # noqa: S310 - checked above
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
                numbers = json.loads(answer.read(_MOST_BYTES))
            _check(numbers)
        except urllib.error.HTTPError as error:
            error.close()
            answer_line = f"{error.code} {error.reason}".rstrip()
            raise Unreachable(f"{self._base} answers {answer_line}") from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
            raise Unreachable(f"cannot reach {self._base}: {text}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise Unreachable(f"{self._base} is not a StatusApp's") from error
        return dict(numbers)


def _split(url: str) -> SplitResult | None:
    """Return the parts of a web server's URL; None for any other text."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if valid and url.isascii() and url.isprintable() and " " not in url else None


def _check(numbers: Any) -> None:
    """Raise LookupError or TypeError if a part is missing that every `StatusApp` gives."""
    numbers["at"] += 0.0
    for pool in numbers["pools"]:
        len(pool["endpoints"])

from __future__ import annotations

import errno
import os

from conpool._errors.connect import ConnectError, said
from conpool._values.endpoint import Endpoint

ENDPOINT = Endpoint("db.example", 5432)


def refused(addresses: int) -> ConnectError:
    """The error after each of so many addresses refused."""
    text = os.strerror(errno.ECONNREFUSED)
    attempts = [OSError(errno.ECONNREFUSED, text) for _ in range(addresses)]
    return ConnectError(
        text, endpoint=ENDPOINT, phase="tcp", errno=errno.ECONNREFUSED, attempts=attempts
    )


def test_many_attempts_are_not_all_in_the_text() -> None:
    error = refused(8)
    assert len(error.attempts) == 8
    assert str(error).count("Connection refused") == 6
    assert str(error).endswith("; and 3 more")


def test_a_single_attempt_is_not_repeated_in_the_text() -> None:
    assert str(refused(1)).count("Connection refused") == 1


def test_an_unknown_number_is_shown_as_a_number() -> None:
    error = ConnectError("odd", endpoint=ENDPOINT, phase="tcp", errno=99999)
    assert str(error).endswith("odd [errno 99999]")


def test_a_long_text_is_shortened() -> None:
    assert 100 < len(said(RuntimeError("x" * 10_000))) < 400


def test_an_exception_that_cannot_be_shown_is_named_only() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert said(Unprintable()) == Unprintable.__qualname__

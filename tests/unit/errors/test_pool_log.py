"""What stands in the records of a pool's log, and at which level."""

from __future__ import annotations

import errno
import logging
from inspect import unwrap
from pathlib import Path

import pytest
import trio

from conpool import Endpoint, Login
from conpool._errors.pool_log import NO_LOG, PoolLog
from tests import conftest

ENDPOINT = Endpoint("db.example", 5432, login=Login("app", "c4n4ry"))


def test_each_record_has_the_pool_and_the_endpoint(caplog: pytest.LogCaptureFixture) -> None:
    PoolLog("orders").about(ENDPOINT).warning("%d of %d", 1, 2)
    (record,) = caplog.records
    assert record.name == "conpool"
    assert record.getMessage() == "pool orders: 1 of 2"
    assert vars(record)["pool"] == "orders"
    assert vars(record)["endpoint"] == "app@db.example:5432"
    assert "c4n4ry" not in str(vars(record))


def test_what_belongs_to_no_pool_has_a_record_as_well(caplog: pytest.LogCaptureFixture) -> None:
    NO_LOG.warning("100 %s", "%")
    (record,) = caplog.records
    assert record.getMessage() == "100 %"
    assert vars(record)["pool"] is vars(record)["endpoint"] is None


def test_a_name_with_a_percent_sign_is_shown_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    PoolLog("100 %s").warning("full")
    assert caplog.messages == ["pool 100 %s: full"]


def test_a_record_is_of_the_line_that_complains(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(PoolLog, "write", unwrap(PoolLog.write))  # those who listen are a frame
    NO_LOG.warning("here")
    assert Path(caplog.records[0].pathname) == Path(__file__)


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (ValueError("bug"), logging.WARNING),
        (ExceptionGroup("", [OSError("net"), ValueError("bug")]), logging.WARNING),
        (ExceptionGroup("", [OSError("net"), trio.BrokenResourceError()]), logging.INFO),
        (ConnectionResetError(errno.ECONNRESET, "net"), logging.INFO),
        (trio.ClosedResourceError(), logging.INFO),
        (trio.TooSlowError(), logging.INFO),
    ],
)
def test_the_level_says_whether_the_peer_or_the_program_is_to_blame(
    error: Exception, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "conpool")
    NO_LOG.gone_wrong("a check failed", error=error)
    (record,) = caplog.records
    assert record.levelno == level
    assert record.exc_info
    assert record.exc_info[1] is error


def test_the_other_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "conpool")
    NO_LOG.note("noted")
    NO_LOG.failed("failed", error=None)
    levels = [(record.getMessage(), record.levelno) for record in caplog.records]
    assert levels == [("noted", logging.INFO), ("failed", logging.ERROR)]


def test_what_nobody_reads_is_not_put_together(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(PoolLog, "write", unwrap(PoolLog.write))  # nobody listens

    class Unreadable:
        def __str__(self) -> str:
            raise AssertionError

    caplog.set_level(logging.ERROR, "conpool")
    PoolLog("orders", Unreadable()).warning("quiet")  # type: ignore[arg-type]
    assert not caplog.records


# ── the watch over the whole suite ──────────────────────────────────────────────


@pytest.mark.parametrize("part", ["a canary", "c4n4ry", "harmless"])
def test_g9_a_secret_that_the_log_tells_is_noticed_at_any_level(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(PoolLog, "write", unwrap(PoolLog.write))
        watch = unwrap(conftest.no_secret_is_logged._get_wrapped_function())(patch)
        next(watch)
        NO_LOG.note("a dial has failed: %s", OSError(part))
        NO_LOG.note("a dial has failed", error=OSError("harmless"))
        if part == "harmless":
            assert next(watch, None) is None
        else:
            with pytest.raises(AssertionError):
                next(watch)

"""An observer that writes all it hears to the log."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from conpool import CircuitState, ConfigError, ConnectError, LoggingObserver, Observer
from tests.support.pools import HERE, Network, open_pool, use

REFUSED = "Connection refused [ECONNREFUSED]"


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    for record in caplog.records:
        assert vars(record)["pool"] == "orders"
        assert vars(record)["endpoint"] == str(HERE)
        assert record.name == "conpool.events"
    return [record.getMessage().removeprefix(f"pool orders, {HERE}: ") for record in caplog.records]


async def test_each_event_has_a_record(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "conpool.events")
    network = Network()
    async with open_pool(network, observers=[LoggingObserver("orders")]) as pool:
        await use(pool)
        pool.clear(HERE)
        network.refuse()
        with pytest.raises(ConnectError):
            await pool.acquire(HERE)
    assert said(caplog) == [
        "asked for",
        "connection 1 dialled",
        "connection 1 open after 0.000000 s",
        "connection 1 lent after 0.000000 s, use 1",
        "connection 1 given back after 0.000000 s",
        "cleared",
        "connection 1 closed: cleared, 1 uses",
        "asked for",
        "connection 2 dialled",
        f"connection 2 failed after 0.000000 s: cannot connect to {HERE}, phase tcp: {REFUSED}",
        "got nothing in 0.000000 s: ConnectRefused",
    ]


def test_a_circuit_that_changes_has_a_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "conpool.events")
    LoggingObserver("orders").circuit_changed(HERE, CircuitState.CLOSED, CircuitState.OPEN)
    assert said(caplog) == ["circuit open, was closed"]


def test_it_hears_of_every_event() -> None:
    events = {name for name in vars(Observer) if not name.startswith("_")}
    assert events <= vars(LoggingObserver).keys()


def test_logger_and_level_can_be_chosen(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("app.pool")
    LoggingObserver(logger=logger, level=logging.WARNING).cleared(HERE)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("app.pool", logging.WARNING)
    assert record.getMessage() == f"{HERE}: cleared"
    assert vars(record)["pool"] is None


def test_what_nobody_reads_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError

    logger = logging.getLogger("app.quiet")
    logger.setLevel(logging.INFO)
    monkeypatch.setattr(logger, "log", forbidden)
    LoggingObserver(logger=logger).cleared(HERE)


@pytest.mark.parametrize(("pool", "logger"), [(1, None), (None, "conpool"), ("x", None)])
def test_what_is_no_name_or_logger_is_refused(pool: Any, logger: Any) -> None:
    with pytest.raises(ConfigError):
        LoggingObserver(pool, logger=logger)

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
from typing import Any

import pytest

from conpool._engine.news import News, tell
from conpool._errors.pool_log import NO_LOG
from conpool._extend.observer import ConnectionInfo, Observer
from conpool._values.config_error import ConfigError
from conpool._values.endpoint import Endpoint
from conpool._values.states import CircuitState, CloseReason

ENDPOINT = Endpoint("db.example", 5432)
INFO = ConnectionInfo(1, ENDPOINT, 12.5, 3)

EVENTS: dict[str, tuple[Any, ...]] = {
    "acquire_started": (ENDPOINT,),
    "acquired": (INFO, 0.1),
    "acquire_failed": (ENDPOINT, ValueError(), 0.2),
    "released": (INFO, 0.3),
    "connecting": (INFO,),
    "connected": (INFO, 0.4),
    "connect_failed": (INFO, ValueError(), 0.5),
    "closed": (INFO, CloseReason.ERROR),
    "cleared": (ENDPOINT,),
    "circuit_changed": (ENDPOINT, CircuitState.CLOSED, CircuitState.OPEN),
}


class Recorder(Observer):
    """Writes down every call of an observer, whatever it is."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        for name in EVENTS:
            setattr(self, name, functools.partial(self._note, name))

    def _note(self, name: str, *args: Any) -> None:
        self.calls.append((name, *args))


class OnlyClosed(Observer):
    def __init__(self, error: BaseException | None = None) -> None:
        self.reasons: list[CloseReason] = []
        self.error = error

    def closed(self, info: ConnectionInfo, reason: CloseReason) -> None:
        self.reasons.append(reason)
        if self.error is not None:
            raise self.error


def test_the_table_of_events_is_complete() -> None:
    methods = {name for name, _ in inspect.getmembers(Observer, inspect.isfunction)}
    assert {name for name in methods if not name.startswith("_")} == set(EVENTS)
    others = {"reused", "pending", "is_held", "watches_leases", "_guests", "log"}
    assert set(vars(News())) == set(EVENTS) | others


def test_observers_learn_whose_news_it_is() -> None:
    joined: list[object] = []

    class Exporter(Observer):
        def _joined(self, pool: object) -> None:
            joined.append(pool)

    News([Exporter(), Observer()]).join("a pool")
    assert joined == ["a pool"]


@pytest.mark.parametrize("event", EVENTS)
def test_an_observer_by_itself_does_nothing(event: str) -> None:
    assert getattr(Observer(), event)(*EVENTS[event]) is None


@pytest.mark.parametrize("event", EVENTS)
def test_each_event_reaches_the_observers_in_order(event: str) -> None:
    first, second = Recorder(), Recorder()
    second.calls = first.calls
    announcer = News([first, second])
    tell(NO_LOG, getattr(announcer, event), *EVENTS[event])
    assert first.calls == [(event, *EVENTS[event])] * 2


@pytest.mark.parametrize("event", [*EVENTS, "reused"])
def test_an_event_that_nobody_watches_has_nobody_to_tell(event: str) -> None:
    assert getattr(News(), event) == ()
    assert getattr(News([Observer(), Observer()]), event) == ()


def test_only_methods_that_are_overridden_are_called() -> None:
    announcer = News([OnlyClosed(), Observer()])
    watched = [name for name in EVENTS if getattr(announcer, name)]
    assert watched == ["closed"]
    assert len(announcer.closed) == 1


def test_a_method_overridden_by_an_ancestor_counts() -> None:
    class Heir(OnlyClosed):
        pass

    heir = Heir()
    tell(NO_LOG, News([heir]).closed, INFO, CloseReason.USES)
    assert heir.reasons == [CloseReason.USES]


def test_the_callbacks_are_fed_by_the_same_events_and_come_first() -> None:
    calls: list[Any] = []
    observer = Recorder()
    observer.calls = calls
    announcer = News(
        [observer],
        on_created=lambda info: calls.append(("created", info)),
        on_reused=lambda info: calls.append(("reused", info)),
        on_closed=lambda info, reason: calls.append(("gone", info, reason)),
    )
    tell(NO_LOG, announcer.connected, INFO, 0.4)
    tell(NO_LOG, announcer.reused, INFO)
    tell(NO_LOG, announcer.closed, INFO, CloseReason.ERROR)
    assert calls == [
        ("created", INFO),
        ("connected", INFO, 0.4),
        ("reused", INFO),
        ("gone", INFO, CloseReason.ERROR),
        ("closed", INFO, CloseReason.ERROR),
    ]


def test_what_an_observer_raises_is_logged_and_goes_no_further_g20(
    caplog: pytest.LogCaptureFixture,
) -> None:
    after = OnlyClosed()
    error = ValueError("no")
    tell(NO_LOG, News([OnlyClosed(error), after]).closed, INFO, CloseReason.ERROR)
    assert after.reasons == [CloseReason.ERROR]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("conpool", logging.ERROR)
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert record.getMessage() == "OnlyClosed.closed raised when it was told about db.example:5432"


def test_what_a_callback_raises_is_logged_under_its_own_name_g20(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def failing(_info: ConnectionInfo) -> None:
        raise ValueError

    announcer = News(on_created=failing, on_reused=functools.partial(failing))
    tell(NO_LOG, announcer.connected, INFO, 0.4)
    tell(NO_LOG, announcer.reused, INFO)
    first, second = (record.getMessage() for record in caplog.records)
    assert "failing raised when it was told about db.example:5432" in first
    assert second == "partial raised when it was told about db.example:5432"


def test_the_log_names_the_endpoint_of_an_event_without_a_connection_g20(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing(Observer):
        def cleared(self, endpoint: Any) -> None:
            raise ValueError

    tell(NO_LOG, News([Failing()]).cleared, ENDPOINT)
    assert caplog.records[0].getMessage().endswith("told about db.example:5432")


def test_telling_about_nothing_in_particular_is_fine(caplog: pytest.LogCaptureFixture) -> None:
    def failing() -> None:
        raise ValueError

    tell(NO_LOG, (failing,))
    assert caplog.records[0].getMessage().endswith("told about nothing")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), GeneratorExit()])
def test_what_is_no_ordinary_exception_is_let_through(error: BaseException) -> None:
    announcer = News([OnlyClosed(error)])
    with pytest.raises(type(error)) as caught:
        tell(NO_LOG, announcer.closed, INFO, CloseReason.ERROR)
    assert caught.value is error


def test_the_observers_may_come_from_an_iterator() -> None:
    assert len(News(iter([OnlyClosed(), OnlyClosed()])).closed) == 2


@pytest.mark.parametrize("observers", [5, [object()], [OnlyClosed], ["closed"]])
def test_what_is_no_observer_is_refused_f019(observers: Any) -> None:
    with pytest.raises(ConfigError, match="observers must be an"):
        News(observers)


def test_a_lone_observer_is_not_a_list_of_them_f019() -> None:
    with pytest.raises(ConfigError, match="observers must be an iterable, not OnlyClosed"):
        News(OnlyClosed())  # type: ignore[arg-type]


async def coroutine(*_args: object) -> None: ...


async def generator(*_args: object) -> Any:
    yield


class Awaitable:
    async def __call__(self, *_args: object) -> None: ...


@pytest.mark.parametrize("name", ["on_created", "on_reused", "on_closed"])
@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (5, "a function, not int"),
        (coroutine, "a plain function"),
        (generator, "a plain function"),
        (functools.partial(coroutine, 1), "a plain function"),
        (Awaitable(), "a plain function"),
    ],
)
def test_a_callback_that_cannot_be_called_is_refused_f019(
    name: str, callback: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be {message}"):
        News(**{name: callback})


def test_an_asynchronous_method_is_refused_f019() -> None:
    class Late(Observer):
        async def cleared(self, endpoint: Any) -> None:  # type: ignore[override]
            pass

    with pytest.raises(ConfigError, match=r"Late\.cleared must be a plain function"):
        News([Late()])


def test_a_callable_object_is_a_callback_too() -> None:
    class Callable:
        def __call__(self, *args: object) -> None:
            self.args = args

    callback = Callable()
    tell(NO_LOG, News(on_created=callback).connected, INFO, 0.4)
    assert callback.args == (INFO,)


def test_what_observers_learn_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        INFO.uses = 4  # type: ignore[misc]
    assert repr(INFO).startswith("ConnectionInfo(id=1, endpoint=")

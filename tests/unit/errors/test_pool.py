from __future__ import annotations

import copy
import errno
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import trio

import conpool
from conpool._errors.connect import (
    ConnectError,
    ConnectRefused,
    ConnectTimeout,
    LocalResourceError,
    ProxyError,
    ProxyTimeout,
    ResolveError,
    ResolveTimeout,
    TLSError,
    TLSTimeout,
)
from conpool._errors.obstacles import Obstacles
from conpool._errors.pool import (
    AcquireTimeout,
    CircuitOpen,
    NoHealthyEndpoint,
    PoolClosed,
    QueueFull,
)
from conpool._stats.counters import Counters
from conpool._stats.snapshot import EndpointStats
from conpool._values.config_error import ConfigError, PoolError
from conpool._values.endpoint import AnyEndpoint, Endpoint
from conpool._values.states import AcquirePhase

ENDPOINT = Endpoint("db.example", 5432)
OTHER = Endpoint("other.example", 5432)
STATS = EndpointStats.of(
    ENDPOINT, limit=50, active=9, idle=8, connecting=7, closing=6, waiting=5, counters=Counters()
)
COUNTS = "9 active, 8 idle, 7 connecting, 6 closing, 5 waiting, limit 50; pool orders"
REMEDIES = "remedies: hold connections for less time"
WORKER = "worker-1, waiting in trio.sleep, for 12.1 s"


def acquire_timeout(
    *, phase: AcquirePhase = "queue", waited: float = 30.0, **obstacles: Any
) -> AcquireTimeout:
    known: dict[str, Any] = {"stats": STATS, "holders": (WORKER,)}
    return AcquireTimeout(
        Obstacles(**(known | obstacles)),
        endpoint=ENDPOINT,
        phase=phase,
        waited=waited,
        pool_name="orders",
    )


def queue_full(*, shed: bool = False, **obstacles: Any) -> QueueFull:
    known: dict[str, Any] = {"stats": STATS}
    return QueueFull(
        Obstacles(**(known | obstacles)), endpoint=ENDPOINT, pool_name="orders", shed=shed
    )


def refusal() -> ConnectError:
    return ConnectError("refused", endpoint=ENDPOINT, phase="tcp", errno=errno.ECONNREFUSED)


def test_an_acquire_timeout_tells_where_what_and_who_g25_f100_f102() -> None:
    error = acquire_timeout()
    assert str(error).splitlines() == [
        f"no connection to db.example:5432 within 30s, phase queue; {COUNTS}",
        "held by:",
        f"  {WORKER}",
        REMEDIES,
    ]
    assert (error.endpoint, error.phase, error.waited) == (ENDPOINT, "queue", 30.0)
    assert (error.stats, error.deadlock, error.last_connect_error) == (STATS, False, None)
    assert error.holders == (WORKER,)


def test_an_acquire_timeout_is_a_too_slow_error_of_trio() -> None:
    error = acquire_timeout()
    assert isinstance(error, PoolError)
    assert isinstance(error, trio.TooSlowError)


def test_an_acquire_timeout_of_zero_is_said_to_be_at_once_f014() -> None:
    assert str(acquire_timeout(waited=0.0)).startswith("no connection to db.example:5432 at once,")


def test_an_acquire_timeout_shows_the_last_connect_error_f102() -> None:
    error = acquire_timeout(
        phase="connect", holders=(), last_connect_error=refusal(), failing_for=12.0
    )
    assert str(error).splitlines() == [
        f"no connection to db.example:5432 within 30s, phase connect; {COUNTS}",
        "no dial has succeeded for 12s; an attempt is under way",
        "last connect error: cannot connect to db.example:5432, phase tcp: refused [ECONNREFUSED]",
        "remedies: mend what the last connect error names",
    ]


def test_an_acquire_timeout_says_how_many_holders_it_leaves_out_f100_f147() -> None:
    error = acquire_timeout(held_by_others=13, held_by_caller=2)
    assert str(error).splitlines()[2:5] == [
        f"  {WORKER}",
        "  and 13 more",
        "the caller itself holds 2 of them",
    ]


def test_an_acquire_timeout_says_that_the_callers_hold_it_all_themselves_f098() -> None:
    error = acquire_timeout(is_deadlock=True, held_by_caller=1)
    *_, holder, advice = str(error).splitlines()
    assert error.deadlock
    assert holder == f"  {WORKER}"
    assert advice.startswith("deadlock: this task waits for what only it can give back; use the")
    assert "raise max_connections_per_endpoint" in advice
    error = acquire_timeout(is_deadlock=True, held_by_caller=1, held_by_others=1)
    *_, own, advice = str(error).splitlines()
    assert own == "the caller itself holds 1 of them"
    assert advice.startswith("deadlock: the tasks that hold these connections all wait for")
    assert "raise max_connections_per_endpoint above" in advice
    assert "remedies" not in str(error)
    assert "raise max_connections above" in str(acquire_timeout(is_deadlock=True, whole_pool="2"))


@pytest.mark.parametrize("shed", [False, True])
def test_a_full_queue_names_counts_and_remedies_f109(shed: bool) -> None:
    error = queue_full(shed=shed)
    head, remedies = str(error).splitlines()
    assert head.startswith("no connection to db.example:5432, phase queue: ")
    assert head.endswith(COUNTS)
    assert ("shed" in head) == shed
    assert ("too many tasks wait already" in head) == (not shed)
    assert remedies.startswith("remedies: ")
    knob = "queue_target_delay" if shed else "max_waiting_per_endpoint"
    assert remedies.endswith(f"raise {knob}")
    assert (error.endpoint, error.stats) == (ENDPOINT, STATS)


def test_a_closed_pool_is_a_closed_resource_of_trio() -> None:
    error = PoolClosed("pool orders is closed")
    assert isinstance(error, PoolError)
    assert isinstance(error, trio.ClosedResourceError)
    assert str(error) == "pool orders is closed"


@pytest.mark.parametrize(
    ("seconds", "said"), [(12.0, "tries again in 12s"), (0.0, "is trying it now")]
)
def test_an_open_circuit_says_when_it_is_tried_again(seconds: float, said: str) -> None:
    error = CircuitOpen(endpoint=ENDPOINT, retry_after=seconds)
    assert (error.endpoint, error.retry_after) == (ENDPOINT, seconds)
    assert str(error).startswith("no connection to db.example:5432, phase connect: ")
    assert str(error).endswith(f"the pool {said}")


def test_a_group_without_a_server_lists_every_reason_f122() -> None:
    reasons: dict[AnyEndpoint, str] = {ENDPOINT: "marked unhealthy", OTHER: "circuit open"}
    error = NoHealthyEndpoint(reasons=reasons)
    reasons.clear()
    assert str(error).splitlines() == [
        "none of 2 servers can be used:",
        "  db.example:5432: marked unhealthy",
        "  other.example:5432: circuit open",
    ]
    assert error.reasons == {ENDPOINT: "marked unhealthy", OTHER: "circuit open"}
    alone = NoHealthyEndpoint(reasons={ENDPOINT: "marked unhealthy"})
    assert str(alone) == "the server cannot be used:\n  db.example:5432: marked unhealthy"


# ── all errors, those of connecting too ───────────────────────────────────────

SAMPLES: list[PoolError] = [
    PoolClosed("closed"),
    acquire_timeout(last_connect_error=refusal()),
    queue_full(),
    CircuitOpen(endpoint=ENDPOINT, retry_after=1.0),
    NoHealthyEndpoint(reasons={ENDPOINT: "down"}),
    *(
        cls(
            "no",
            endpoint=ENDPOINT,
            phase="tcp",
            errno=111,
            attempts=[PermissionError(errno.EPERM, "no")],
        )
        for cls in (
            ConnectError,
            ConnectRefused,
            ConnectTimeout,
            ResolveError,
            ProxyError,
            TLSError,
            ResolveTimeout,
            ProxyTimeout,
            TLSTimeout,
            LocalResourceError,
        )
    ),
]


def test_the_samples_are_complete() -> None:
    public = (getattr(conpool, name) for name in conpool.__all__)
    errors = {it for it in public if isinstance(it, type) and issubclass(it, PoolError)}
    assert {type(sample) for sample in SAMPLES} == errors - {PoolError, ConfigError}


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_a_traceback_names_the_error_as_users_import_it(error: PoolError) -> None:
    last = traceback.format_exception_only(error)[0]
    assert last.startswith(f"conpool.{type(error).__name__}: ")


def told(error: BaseException) -> dict[str, object]:
    """All attributes of an error, with other errors as text, since those have no equality."""
    fields = {name: repr(value) for name, value in vars(error).items()}
    return fields | {"str": str(error), "args": error.args, "errno": getattr(error, "errno", None)}


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_errors_can_be_copied_and_pickled(
    copied: Callable[[PoolError], PoolError], error: PoolError
) -> None:
    again = copied(error)
    assert type(again) is type(error)
    assert again is not error
    assert told(again) == told(error)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_no_error_tells_a_password_g9(error: PoolError) -> None:
    secret = Endpoint.from_url("redis://user:canary@db.example:6379/0")
    error = copy.copy(error)
    fields = vars(error)
    if "endpoint" in fields:
        fields["endpoint"] = secret
    if "reasons" in fields:
        fields["reasons"] = {secret: "down"}
    assert "canary" not in f"{error} {error!r} {fields}"
    assert "canary" not in f"{copy.copy(error)} {vars(copy.deepcopy(error))}"
    if fields.keys() & {"endpoint", "reasons"}:
        with pytest.raises(TypeError, match="a Login with a password cannot be pickled"):
            pickle.dumps(error)

"""What the status app answers: asked in memory, and by a real client of a real server."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import re
import sys
import threading
import types
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import conpool
from conpool.contrib._asgi import numbers
from conpool.contrib.asgi import StatusApp
from conpool.testing import MemoryConnector

Pool = conpool.ConnectionPool[None]
Check = Callable[[], Awaitable[object]]

CANARY = "hunter2-canary"
IN_ERRORS = "s3cret"
"""Part of what checks raise: the log has that in full, as of every hook, but no answer has."""

DB = conpool.Endpoint(
    "db.example", 5432, login=conpool.Login("app", CANARY, "orders"), partition=CANARY
)
CACHE = conpool.Endpoint("cache.example", 6379)


async def echo(stream: trio.abc.Stream) -> None:
    async for data in stream:
        await stream.send_all(data)


class Switch(MemoryConnector):
    """Connects, or refuses where it is told to."""

    def __init__(self) -> None:
        super().__init__(echo)
        self.refuses = False

    async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
        if self.refuses:
            raise ConnectionRefusedError(111, "Connection refused")
        return await super().connect(endpoint)


def make_pool(connector: conpool.Connector | None = None, **options: Any) -> Pool:
    config = conpool.PoolConfig(**options)
    return conpool.ConnectionPool(config, connector=connector or Switch(), name="main")


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    app: StatusApp, target: str, *, method: str = "GET", root_path: str | None = None
) -> Answer:
    """Send one request as an ASGI server would."""
    path, _, query = target.partition("?")
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode()}
    if root_path is not None:
        scope["root_path"] = root_path
    sent: list[dict[str, Any]] = []

    async def receive() -> Mapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    await app(scope, receive, send)
    start, body = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], headers, body["body"])


async def use(pool: Pool, *endpoints: conpool.AnyEndpoint) -> None:
    for endpoint in endpoints:
        async with pool.connection(endpoint):
            pass


# ── the app as ASGI sees it ─────────────────────────────────────────────────────


async def test_health_says_that_the_program_answers() -> None:
    app = StatusApp()  # a liveness probe is about the program, and not about its pools
    answer = await ask(app, "/health")
    assert (answer.status, answer.json) == (200, {"status": "ok"})
    assert answer.headers["cache-control"] == "no-store"


async def test_page_may_run_its_own_script_and_nothing_else() -> None:
    answer = await ask(StatusApp(), "/")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (code,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    outside = re.sub(r'"http://www.w3.org/2000/svg"', "", answer.text)
    assert not re.search(r"https?://|@import|src=", outside), "the page needs another file"


async def test_page_below_a_mount_is_asked_for_with_a_slash() -> None:
    answer = await ask(StatusApp(), "/status", root_path="/status")
    assert (answer.status, answer.headers["location"]) == (307, "status/")


@pytest.mark.parametrize(
    ("path", "root"),
    [("/status/health", "/status"), ("/health", "/status"), ("/health", ""), ("/a/health", "/a/")],
)
async def test_paths_are_found_with_and_without_the_mount_point(path: str, root: str) -> None:
    assert (await ask(StatusApp(), path, root_path=root)).status == 200


async def test_head_has_no_body_and_post_is_refused() -> None:
    app = StatusApp()
    got, head = await ask(app, "/health"), await ask(app, "/health", method="HEAD")
    assert head.body == b""
    assert head.headers == got.headers
    posted = await ask(app, "/health", method="POST")
    assert (posted.status, posted.headers["allow"]) == (405, "GET, HEAD")


async def test_unknown_path_is_told_the_known_ones() -> None:
    answer = await ask(StatusApp(), "/nonesuch")
    assert answer.status == 404
    assert "/stats.json" in answer.text


async def test_server_s_start_and_end_are_confirmed() -> None:
    events = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[str] = []

    async def receive() -> Mapping[str, Any]:
        return {"type": next(events)}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event["type"])

    await StatusApp()({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_websocket_is_refused() -> None:
    sent: list[str] = []

    async def receive() -> Mapping[str, Any]:
        return {"type": "websocket.connect"}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event["type"])

    await StatusApp()({"type": "websocket", "path": "/"}, receive, send)
    assert sent == ["websocket.close"]


def test_arguments_are_checked() -> None:
    async def check() -> None: ...

    def plain() -> None: ...

    wrong: Any = plain
    with pytest.raises(conpool.ConfigError, match="a pool must be a ConnectionPool"):
        StatusApp(wrong)
    with pytest.raises(conpool.ConfigError, match="check 'x' must be an async function"):
        StatusApp(checks={"x": wrong})
    with pytest.raises(conpool.ConfigError, match="name of a check must be a str"):
        StatusApp(checks={wrong: check})
    with pytest.raises(conpool.ConfigError, match="check_timeout must be more than 0"):
        StatusApp(checks={"x": check}, check_timeout=0)


# ── the numbers ─────────────────────────────────────────────────────────────────


async def test_stats_are_those_of_the_pools() -> None:
    async with make_pool(max_connections=5) as one, make_pool() as other:
        app = StatusApp(one, other)
        async with one.connection(DB):
            (first, second) = (await ask(app, "/stats.json")).json["pools"]
            stats = one.all_stats().to_dict()
        (member,) = first.pop("endpoints")
        (expected,) = stats.pop("endpoints")
        assert first == stats | {"state": "open", "known": 1, "matching": 1}
        assert expected.items() <= member.items()
        assert (member["active"], member["status"], member["error"]) == (1, "ok", None)
        assert (second["endpoints"], second["limit"], first["limit"]) == ([], None, 5)


async def test_stats_name_the_few_that_matter_most() -> None:
    async with make_pool() as pool:
        app = StatusApp(pool)
        endpoints = [conpool.Endpoint(f"host{number}.example", 80) for number in range(10)]
        await use(pool, *endpoints)
        async with pool.connection(endpoints[7]), pool.connection(endpoints[3]):
            everything = (await ask(app, "/stats.json")).json["pools"][0]
            top = (await ask(app, "/stats.json?top=2")).json["pools"][0]
            found = (await ask(app, "/stats.json?match=HOST4")).json["pools"][0]
            ids = {one["endpoint"]: one["id"] for one in everything["endpoints"]}
            also = f"/stats.json?top=1&also={ids['host9.example:80']},{ids['host3.example:80']},x"
            more = (await ask(app, also)).json["pools"][0]
    assert len(set(ids.values())) == 10
    assert {one["endpoint"] for one in top["endpoints"]} == {"host7.example:80", "host3.example:80"}
    assert (top["known"], top["matching"], top["active"]) == (10, 10, 2)
    assert [one["endpoint"] for one in found["endpoints"]] == ["host4.example:80"]
    assert (found["known"], found["matching"]) == (10, 1)
    assert {"host3.example:80", "host9.example:80"} <= {
        one["endpoint"] for one in more["endpoints"]
    }
    assert 2 <= len(more["endpoints"]) <= 3


@pytest.mark.parametrize("sort", numbers.SORTS)
async def test_stats_have_every_order(sort: str) -> None:
    connector = Switch()
    async with make_pool(connector, max_connections_per_endpoint=1) as pool:
        await use(pool, DB, CACHE)
        async with trio.open_nursery() as nursery, pool.connection(CACHE) as held:
            nursery.start_soon(use, pool, CACHE)
            await wait_all_tasks_blocked()
            shown = (await ask(StatusApp(pool), f"/stats.json?sort={sort}")).json
            held.retire()
    assert len(shown["pools"][0]["endpoints"]) == 2
    if sort in {"busiest", "waiting"}:
        assert shown["pools"][0]["endpoints"][0]["endpoint"] == "cache.example:6379"


@pytest.mark.parametrize("query", ["top=x", "top=-1", "top=99999999999", "sort=nonesuch"])
async def test_stats_refuse_options_that_make_no_sense(query: str) -> None:
    assert (await ask(StatusApp(), f"/stats.json?{query}")).status == 400


async def test_endpoints_that_look_alike_keep_ids_of_their_own() -> None:
    async with make_pool() as pool:
        app = StatusApp(pool)
        await use(pool, CACHE, conpool.Endpoint("cache.example", 6379, partition=1))
        asked = [(await ask(app, "/stats.json")).json["pools"][0]["endpoints"] for _ in range(2)]
    ids = [[one["id"] for one in members] for members in asked]
    assert len(set(ids[0])) == 2
    assert ids[0] == ids[1]


async def test_numbers_of_many_endpoints_do_not_hold_up_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[bool] = []
    read = numbers.Numbers._read

    def watched(self: numbers.Numbers, *args: Any) -> bytes:
        threads.append(threading.current_thread() is threading.main_thread())
        return read(self, *args)

    monkeypatch.setattr(numbers.Numbers, "_read", watched)
    async with make_pool() as pool:
        app = StatusApp(pool)
        await use(pool, CACHE)
        await ask(app, "/stats.json")
        for number in range(numbers._MANY):
            pool.pause(conpool.Endpoint(f"host{number}.example", 80))
        answer = await ask(app, "/stats.json?top=3")
    assert threads == [True, False]
    assert answer.json["pools"][0]["known"] == numbers._MANY + 1
    assert len(answer.json["pools"][0]["endpoints"]) == 3


# ── who holds what ──────────────────────────────────────────────────────────────


async def hold_for_ever(pool: Pool, task_status: trio.TaskStatus[None]) -> None:
    async with pool.connection(DB):
        task_status.started()
        await trio.sleep_forever()


async def test_holders_are_named_on_demand() -> None:
    async with make_pool(max_connections_per_endpoint=20) as pool, trio.open_nursery() as nursery:
        app = StatusApp(make_pool(), pool)
        for _ in range(14):
            await nursery.start(hold_for_ever, pool)
        (member,) = (await ask(app, "/stats.json")).json["pools"][1]["endpoints"]
        answer = await ask(app, f"/holders.json?id={member['id']}")
        nursery.cancel_scope.cancel()
    assert answer.json["endpoint"] == "app@db.example:5432/orders"
    assert len(answer.json["holders"]) == 12
    assert answer.json["others"] == 2
    assert "hold_for_ever" in answer.json["holders"][0]
    assert "waits in" in answer.json["holders"][0]


@pytest.mark.parametrize(("query", "status"), [("id=1", 404), ("id=x", 400), ("", 400)])
async def test_holders_of_an_unknown_endpoint_are_not_found(query: str, status: int) -> None:
    async with make_pool() as pool:
        assert (await ask(StatusApp(pool), f"/holders.json?{query}")).status == status


# ── health in detail ────────────────────────────────────────────────────────────


async def test_health_has_each_endpoint_and_each_check(autojump_clock: trio.abc.Clock) -> None:
    async def ping() -> str:
        await trio.sleep(0.25)
        return "PostgreSQL 15.4"

    async def quiet() -> object:
        return object()

    async with make_pool() as pool:
        await use(pool, DB, CACHE)
        pool.pause(CACHE)  # somebody wanted that: it is no failure
        answer = await ask(
            StatusApp(pool, checks={"ping": ping, "quiet": quiet}), "/health/detailed"
        )
    fine = {"error": None, "failing_for": None}
    assert answer.status == 200
    assert answer.json == {
        "status": "ok",
        "pools": [
            {
                "name": "main",
                "status": "ok",
                "state": "open",
                "endpoints": [
                    {"endpoint": "app@db.example:5432/orders", "status": "ok", **fine},
                    {"endpoint": "cache.example:6379", "status": "paused", **fine},
                ],
            }
        ],
        "checks": {
            "ping": {"status": "ok", "seconds": 0.25, "error": None, "result": "PostgreSQL 15.4"},
            "quiet": {"status": "ok", "seconds": 0.0, "error": None, "result": None},
        },
    }


async def test_endpoint_that_is_marked_is_unhealthy_and_one_that_is_only_paused_is_not() -> None:
    async with make_pool() as pool:
        app = StatusApp(pool)
        await use(pool, DB, CACHE)
        pool.mark_unhealthy(DB)
        pool.pause(DB)
        pool.pause(CACHE)
        for path in ("/stats.json", "/health/detailed"):
            answer = await ask(app, path)
            members = answer.json["pools"][0]["endpoints"]
            found = {member["endpoint"]: member["status"] for member in members}
            assert found == {str(DB): "unhealthy", str(CACHE): "paused"}
            assert answer.status == 200
        pool.mark_healthy(DB)
        answer = await ask(app, "/stats.json")
        assert {member["status"] for member in answer.json["pools"][0]["endpoints"]} == {"paused"}


async def test_health_follows_an_outage_and_its_end(autojump_clock: trio.abc.Clock) -> None:
    connector = Switch()
    async with make_pool(connector) as pool:
        app = StatusApp(pool)
        connector.refuses = True
        with pytest.raises(conpool.PoolError):
            async with pool.connection(CACHE, timeout=0.5):
                raise AssertionError
        answer = await ask(app, "/health/detailed")
        (member,) = answer.json["pools"][0]["endpoints"]
        assert answer.status == 503
        assert (answer.json["status"], member["status"]) == ("failing", "failing")
        assert "Connection refused" in member["error"]
        assert member["failing_for"] >= 0
        (shown,) = (await ask(app, "/stats.json")).json["pools"][0]["endpoints"]
        assert (shown["status"], shown["error"]) == ("failing", member["error"])
        connector.refuses = False
        await use(pool, CACHE)
        assert (await ask(app, "/health/detailed")).status == 200


async def test_health_of_a_pool_that_is_not_open_is_failing() -> None:
    pool = make_pool()
    app = StatusApp(pool)
    assert (await ask(app, "/health/detailed")).json["pools"][0]["state"] == "new"
    async with pool:
        assert (await ask(app, "/health/detailed")).status == 200
    answer = await ask(app, "/health/detailed")
    assert (answer.status, answer.json["pools"][0]["state"]) == (503, "closed")


async def test_checks_run_side_by_side_and_none_for_too_long(
    autojump_clock: trio.abc.Clock,
) -> None:
    async def hang() -> None:
        await trio.sleep_forever()

    async def slow() -> None:
        await trio.sleep(1.5)

    started_at = trio.current_time()
    app = StatusApp(checks={"hang": hang, "slow": slow, "hang too": hang}, check_timeout=2.0)
    answer = await ask(app, "/health/detailed")
    assert trio.current_time() - started_at == 2.0
    assert answer.status == 503
    checks = answer.json["checks"]
    assert checks["hang"]["error"] == checks["hang too"]["error"] == "no answer within 2s"
    assert (checks["slow"]["status"], checks["slow"]["seconds"]) == ("ok", 1.5)


async def test_a_request_that_is_cancelled_cancels_its_checks() -> None:
    ended: list[str] = []

    async def hang() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("hang")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, StatusApp(checks={"hang": hang}), "/health/detailed")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert ended == ["hang"]


def failing_checks() -> Iterator[tuple[str, Check, str]]:
    async def say_no() -> bool:
        return False

    async def refuse() -> None:
        raise ConnectionRefusedError(111, f"postgres://u:{IN_ERRORS}@db")

    async def complain() -> None:
        raise ValueError(f"cannot parse password={IN_ERRORS}")

    async def be_at_fault() -> None:
        raise conpool.ConfigError("max_connections must be an int of at least 1")

    async def collapse() -> None:
        raise ExceptionGroup(IN_ERRORS, [OSError(IN_ERRORS)])

    yield "no", say_no, "it returned False"
    yield "refused", refuse, "ConnectionRefusedError: Connection refused"
    yield "parse", complain, "ValueError; the log says more"
    yield "config", be_at_fault, "ConfigError: max_connections must be an int of at least 1"
    yield "group", collapse, "ExceptionGroup; the log says more"


async def test_failing_check_is_told_without_its_secrets() -> None:
    cases = list(failing_checks())
    app = StatusApp(checks={name: check for name, check, _ in cases})
    answer = await ask(app, "/health/detailed")
    assert answer.status == 503
    assert {name: one["error"] for name, one in answer.json["checks"].items()} == {
        name: error for name, _, error in cases
    }
    assert IN_ERRORS not in answer.text


async def test_a_check_that_fails_is_logged_once_until_it_recovers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error: list[Exception] = [ValueError("out of order")]

    async def check() -> None:
        if error:
            raise error[0]

    app = StatusApp(checks={"queue": check})
    with caplog.at_level(logging.WARNING, "conpool"):
        for _ in range(3):
            await ask(app, "/health/detailed")
        assert [record.getMessage() for record in caplog.records] == [
            "the health check 'queue' raised"
        ]
        assert "out of order" in caplog.text
        fault = error.pop()
        assert (await ask(app, "/health/detailed")).status == 200
        error.append(fault)
        await ask(app, "/health/detailed")
        assert len(caplog.records) == 2


async def test_no_answer_shows_a_secret() -> None:
    connector = Switch()
    async with make_pool(connector) as pool, trio.open_nursery() as nursery:
        await nursery.start(hold_for_ever, pool)
        connector.refuses = True
        with contextlib.suppress(conpool.PoolError):
            async with pool.connection(DB, timeout=0.05):
                raise AssertionError
        app = StatusApp(pool, checks={name: check for name, check, _ in failing_checks()})
        for path in ("/", "/stats.json", "/holders.json?id=1", "/health/detailed"):
            answer = await ask(app, path)
            assert answer.status in {200, 503}
            assert CANARY not in answer.text
            assert IN_ERRORS not in answer.text
        nursery.cancel_scope.cancel()


# ── metrics ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("missing", ["prometheus_client", "conpool.contrib.prometheus"])
async def test_metrics_say_what_they_need(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    answer = await ask(StatusApp(), "/metrics")
    assert answer.status == 404
    assert "pip install 'conpool[prometheus]'" in answer.text


async def test_metrics_are_the_collector_s(monkeypatch: pytest.MonkeyPatch) -> None:
    client = pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")
    core = pytest.importorskip("prometheus_client.core")

    class Collector:
        def __init__(self, *pools: Pool) -> None:
            self.pools = pools

        def collect(self) -> Iterator[Any]:
            family = core.GaugeMetricFamily("conpool_test", "How many pools there are.")
            family.add_metric([], len(self.pools))
            yield family

    module = types.ModuleType("conpool.contrib.prometheus")
    monkeypatch.setattr(module, "PoolCollector", Collector, raising=False)
    monkeypatch.setitem(sys.modules, "conpool.contrib.prometheus", module)
    app = StatusApp(make_pool(), make_pool())
    for _ in range(2):
        answer = await ask(app, "/metrics")
        assert answer.status == 200
        assert answer.headers["content-type"] == client.CONTENT_TYPE_LATEST
        assert "conpool_test 2.0" in answer.text

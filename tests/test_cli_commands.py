"""`conpool bench`, `probe` and `top`: their output, their exit status, and what they do not say."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from rich.console import Console

import conpool
from conpool import cli
from conpool.cli import _bench, _bench_rivals, _probe, _probe_report, _probe_steps as steps, _top
from conpool.cli._arguments import make_parser
from conpool.cli._bench_watch import Result
from conpool.cli._probe_report import Findings, judge
from conpool.cli._screen import SilentScreen, plain
from conpool.cli._top_source import Source, Unreachable
from conpool.contrib.asgi import StatusApp

from .servers import LOOPBACK, Certificates, Nginx, Valkey, free_port


def is_narrow(text: str) -> bool:
    return all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["bench", "--rounds", "0"], "must be a whole number of at least 1, not '0'"),
        (["bench", "--tasks", "many"], "must be a whole number of at least 1, not 'many'"),
        (["probe"], "required: URL"),
        (["probe", "tcp://h:1", "--wait", "-1"], "must be seconds, 0 or more, not '-1'"),
        (["probe", "tcp://h:1", "--timeout", "nan"], "must be seconds, 0 or more, not 'nan'"),
        (["top", "http://h", "--sort", "name"], "invalid choice: 'name'"),
        (["nonesuch"], "invalid choice: 'nonesuch'"),
    ],
)
def test_wrong_arguments_are_told_in_a_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main(arguments)
    assert exited.value.code == 2
    printed = capsys.readouterr()
    assert complaint in printed.err.splitlines()[-1]
    assert not printed.out


def test_reader_that_goes_away_ends_a_command_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "conpool", "probe", f"tcp://{LOOPBACK}:{free_port()}"]
    try:
        done = subprocess.run(
            command,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": ""},  # so that something is left at its end
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=50,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


# ── bench ───────────────────────────────────────────────────────────────────────


def test_bench_compares_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--rounds", "1", "--tasks", "20", "--json"]) == 0
    printed = capsys.readouterr()
    measured = json.loads(printed.out)
    names = {(one["case"], one["name"].partition(" ")[0]) for one in measured["results"]}
    own = {
        ("request", "conpool"),
        ("request", "fresh"),
        ("lease", "conpool"),
        ("shared", "conpool"),
    }
    assert own <= names
    for rival in (_bench_rivals.PSYCOPG, _bench_rivals.REDIS):
        for case in ("lease", "shared"):
            assert ((case, rival.package) in names) == rival.is_installed()
        assert (rival.package in measured["missing"]) != rival.is_installed()
    assert all(one["seconds"] > 0 for one in measured["results"])


def test_bench_measures_itself_where_nothing_else_is_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_bench_rivals.Rival, "is_installed", lambda _: False)
    assert cli.main(["bench", "--rounds", "1", "--tasks", "20"]) == 0
    printed = capsys.readouterr().out
    assert "fresh connections" in printed
    assert printed.endswith("Not installed, so not measured: httpx2, psycopg-pool, redis.\n")
    assert is_narrow(printed)


def test_bars_are_as_long_as_what_they_stand_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    results = [
        Result("lease", "conpool", 1e-5),
        Result("lease", "x" * 20, 2e-5),
        Result("shared", "conpool", 3.0),
    ]
    text = _bench.describe(results, 12)
    assert is_narrow(text)
    own, other, alone = (line for line in text.splitlines() if line.endswith("#"))
    assert own.split()[1:3] == ["10us", "1.0"]
    assert other.split()[1:3] == ["20us", "2.0"]
    assert other.count("#") == 2 * own.count("#") == alone.count("#")
    assert "where 12 tasks share" in text


# ── probe ───────────────────────────────────────────────────────────────────────


Talk = Callable[[trio.abc.Stream], Awaitable[None]]


@asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[int]:
    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await talk(stream)

    async with trio.open_nursery() as nursery:
        start = partial(trio.serve_tcp, serve, 0, host=LOOPBACK)
        listeners: list[trio.SocketListener] = await nursery.start(start)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def probe(*arguments: str) -> Findings:
    options = make_parser().parse_args(["probe", *arguments])
    return await _probe._probe(_probe._read_target(options), options, SilentScreen())


async def answer_pings(stream: trio.abc.Stream, asked: set[int] | None = None) -> None:
    async for data in stream:
        if asked is not None:
            asked.add(id(stream))
        await stream.send_all(b"+PONG\r\n" * bytes(data).count(b"PING\r\n"))


async def answer_once(stream: trio.abc.Stream) -> None:
    await stream.receive_some()
    await stream.send_all(b"+PONG\r\n")


async def tire(stream: trio.abc.Stream) -> None:
    """Answer, but close a connection on which nothing has come for a moment."""
    while True:
        with trio.move_on_after(0.1) as scope:
            if not await stream.receive_some():
                return
            await stream.send_all(b"+PONG\r\n")
        if scope.cancelled_caught:
            return


async def greet(stream: trio.abc.Stream) -> None:
    await stream.send_all(b"welcome\n")
    await stream.receive_some()


async def test_probe_finds_that_a_server_keeps_connections() -> None:
    asked: set[int] = set()
    streams: list[object] = []  # so that no two have the same id

    async def talk(stream: trio.abc.Stream) -> None:
        streams.append(stream)
        await answer_pings(stream, asked)

    async with serving(talk) as port:
        findings = await probe(f"redis://user:hunter2@{LOOPBACK}:{port}/3", "--wait", "0.05")
    assert findings.error is None
    assert findings.resolve_seconds is not None
    assert [attempt.address for attempt in findings.attempts] == [LOOPBACK]
    assert findings.reuse is not None
    assert findings.reuse.kept is not None
    assert findings.idle is not None
    assert not findings.idle.is_closed
    assert len(asked) == steps.FRESH + 1  # fresh ones, the last of them kept, and one to be idle
    text = _probe_report.describe(findings)
    assert "The server keeps connections." in text
    assert "It keeps an idle connection for" in text
    assert is_narrow(text)
    assert "hunter2" not in text + json.dumps(findings.to_dict())


async def test_probe_finds_that_a_server_keeps_none() -> None:
    async with serving(answer_once) as port:
        findings = await probe(f"redis://{LOOPBACK}:{port}")
    assert findings.reuse is not None
    assert findings.reuse.kept is None
    assert "a pool saves nothing here" in _probe_report.describe(findings)


async def test_probe_finds_when_a_server_closes_an_idle_connection() -> None:
    async with serving(tire) as port:
        findings = await probe(f"redis://{LOOPBACK}:{port}", "--wait", "30")
    assert findings.idle is not None
    assert findings.idle.is_closed
    assert 0.05 < findings.idle.waited < 20
    assert "Set max_idle_time below that" in " ".join(judge(findings))


async def test_probe_finds_that_a_server_speaks_first() -> None:
    async with serving(greet) as port:
        findings = await probe(f"mysql://{LOOPBACK}:{port}")
    assert findings.greeting == b"welcome\n"
    (sentence,) = judge(findings)
    assert "speaks first" in sentence


async def be_silent(_: object) -> None:
    await trio.sleep_forever()


async def test_probe_tells_what_is_not_answered() -> None:
    async with serving(be_silent) as port:
        findings = await probe(f"redis://{LOOPBACK}:{port}", "--timeout", "0.5")
        assert findings.error is not None
        assert "no answer within 0.5 s" in findings.error
        secure = await probe(f"rediss://{LOOPBACK}:{port}", "--timeout", "0.5")
        assert secure.error is not None
        assert "phase tls: no answer within 0.5 s" in secure.error


async def test_probe_takes_no_other_protocol_for_a_reply() -> None:
    async def babble(stream: trio.abc.Stream) -> None:
        while True:
            await stream.send_all(b"x" * 10_000)

    async with serving(babble) as port:
        findings = await probe(f"memcached://{LOOPBACK}:{port}")
    assert findings.error is not None
    assert "no proper reply to version" in findings.error


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (b"HTTP/1.1 400 Bad Request", "answered 400 Bad Request and hung up, which says nothing"),
        (b"HTTP/1.1 400 \x1b[31mred", "answered 400 ?[31mred and hung up"),
        (b"HTTP/1.1 404 Not Found", "Some do so after an error alone: probe a path"),
        (b"HTTP/1.0 200 OK", "a pool saves nothing here"),
    ],
)
async def test_probe_says_what_a_web_server_answers_before_it_hangs_up(
    reply: bytes, complaint: str
) -> None:
    async def answer(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(reply + b"\r\n\r\n")

    async with serving(answer) as port:
        findings = await probe(f"http://{LOOPBACK}:{port}")
    assert complaint in " ".join(judge(findings))
    assert is_narrow(text := _probe_report.describe(findings))
    assert "for HEAD (" in text


@pytest.mark.parametrize("scheme", ["http", "redis"])
@pytest.mark.parametrize("said", [b"", b"\x15\x03\x01\x00\x02\x02\x0a"])
async def test_probe_doubts_that_the_server_speaks_without_tls(scheme: str, said: bytes) -> None:
    async def refuse(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(said or b"")

    async with serving(refuse) as port:
        findings = await probe(f"{scheme}://{LOOPBACK}:{port}")
    assert f"does it speak TLS on this port? Then write {scheme}s://)" in (findings.error or "")


async def test_probe_tells_that_a_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    findings = await probe("https://nonesuch.example")
    assert findings.error is not None
    assert "phase resolve: Name or service not known" in findings.error


async def test_probe_of_a_unix_socket_needs_no_name(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with trio.socket.socket(socket.AF_UNIX) as listener:
        await listener.bind(str(path))
        listener.listen()

        async def accept() -> None:
            while True:
                await accepted.send((await listener.accept())[0])

        accepted, _ = trio.open_memory_channel[Any](100)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            findings = await probe(f"unix://{path}")
            nursery.cancel_scope.cancel()
        while _.statistics().current_buffer_used:
            (await _.receive()).close()
    assert findings.error is None
    assert findings.resolve_seconds is None
    assert [attempt.address for attempt in findings.attempts] == [str(path)]
    assert findings.reuse is not None
    assert findings.reuse.what == "a lease alone"


def test_probe_of_a_server_over_tls(
    nginx: Nginx, certificates: Certificates, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"https://localhost:{nginx.tls_port}/echo/a%20b?c=d"
    assert cli.main(["probe", url, "--ca", str(certificates.ca_file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tls"]["version"].startswith("TLSv1.")
    assert found["tls"]["alpn"] == "http/1.1"
    assert found["tls"]["days_left"] >= 0
    assert found["reuse"]["what"] == "HEAD"
    assert found["reuse"]["kept"] < found["reuse"]["fresh"]
    assert found["error"] is None

    assert cli.main(["probe", url]) == 1  # nobody knows the authority
    assert "It failed: cannot connect to localhost" in capsys.readouterr().out
    assert cli.main(["probe", url, "--insecure"]) == 0
    assert "certificate not checked" in " ".join(capsys.readouterr().out.split())


def test_probe_asks_redis_for_a_pong(valkey: Valkey, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["probe", f"redis://{LOOPBACK}:{valkey.port}", "--requests", "3"]) == 0
    assert "for PING on a kept connection" in capsys.readouterr().out


def test_probe_of_nothing_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["probe", f"tcp://{LOOPBACK}:{free_port()}"]) == 1
    printed = capsys.readouterr().out
    assert "Connection refused" in printed
    assert is_narrow(printed)


@pytest.mark.parametrize(
    "arguments",
    [("nonesuch",), ("ftp://example.org",), ("https://:hunter2@",), ("https://h", "--ca", "/none")],
)
def test_probe_of_a_bad_url_is_a_wrong_argument(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["probe", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("conpool probe: error: ")
    assert printed.err.count("\n") == 1
    assert "hunter2" not in printed.err


def test_probe_judges_in_words() -> None:
    endpoint = "peer.example:7"
    attempts = [steps.Attempt("192.0.2.1", None, "refused"), steps.Attempt("192.0.2.2", 0.1, None)]
    tls = steps.Encryption(0.1, "TLSv1.3", "X", "h2", "peer.example", "some authority", 3)
    today = tls._replace(days_left=0)
    late = steps.Idle(90.0, True, b"")
    talks = steps.Idle(5.0, False, b"\x1b[31mred")
    cases = {
        "Some addresses do not answer.": Findings(endpoint, attempts=attempts),
        "expires in 3 days": Findings(endpoint, tls=tls),
        "expires in 0 days": Findings(endpoint, tls=today),
        "after 90s; max_idle_time is 60 s: fine": Findings(endpoint, idle=late),
        "the server sent '\\x1b[31mred'": Findings(endpoint, idle=talks),
    }
    for sentence, findings in cases.items():
        assert sentence in " ".join(judge(findings))
        assert is_narrow(_probe_report.describe(findings))
    assert "ALPN h2" in _probe_report.describe(cases_tls := Findings(endpoint, tls=tls))
    assert cases_tls.to_dict()["tls"]["issuer"] == "some authority"


# ── top ─────────────────────────────────────────────────────────────────────────


pytest.importorskip("hypercorn", reason="hypercorn is not installed")

from .contrib.asgi.serving import served  # noqa: E402
from .contrib.asgi.test_status import CACHE, DB, Switch, make_pool, use  # noqa: E402


async def top(*arguments: str) -> int:
    return await trio.to_thread.run_sync(cli.main, ["top", *arguments])


async def test_top_prints_the_pools_of_a_service(capsys: pytest.CaptureFixture[str]) -> None:
    async with make_pool(max_connections=30) as pool:
        await use(pool, DB, CACHE)
        async with served(StatusApp(pool)) as url, pool.connection(CACHE):
            assert await top(url) == 0
            printed = capsys.readouterr().out
            assert await top(f"{url}/stats.json", "--json", "--match", "cache") == 0
            (member,) = json.loads(capsys.readouterr().out)["pools"][0]["endpoints"]
    assert "main  open, 1 active of 30, 1 idle, 0 waiting, 0 timed out" in printed
    rows = [line.split() for line in printed.splitlines()]
    assert rows[2][:4] == ["cache.example:6379", "1/10", "0", "0"]
    assert rows[3][0] == "app@db.example:5432/orders"
    assert is_narrow(printed)
    assert member["endpoint"] == "cache.example:6379"


async def test_top_tells_the_rest_and_who_is_in_trouble(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with make_pool() as pool:
        for number in range(25):
            pool.pause(conpool.Endpoint(f"host{number}.example", 80))
        async with served(StatusApp(pool)) as url:
            assert await top(url) == 0
    printed = capsys.readouterr().out
    assert printed.count("paused") == 20
    assert "5 more endpoints" in printed


def options(**changed: Any) -> Namespace:
    defaults = {"rows": None, "sort": "busiest", "match": "", "count": None}
    return Namespace(**{**defaults, **changed})


async def test_live_table_has_rates_and_outlives_an_outage() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, height=12, color_system=None)
    connector = Switch()
    async with make_pool(connector) as pool:
        async with served(StatusApp(pool)) as url:
            await use(pool, CACHE)
            view = _top.View(Source(url), options(), console)
            for _ in range(2):
                console.print(await trio.to_thread.run_sync(view.draw))
                await use(pool, CACHE, CACHE)
        console.print(await trio.to_thread.run_sync(view.draw))
    first, second, third = file.getvalue().split("main  open")[1:]
    assert first.split("\n")[2].split()[-2:] == ["-", "0"]
    assert float(second.split("\n")[2].split()[-2]) > 0
    assert "Ctrl-C ends" in second
    assert "no answer for" in third
    assert "cannot reach" in third


async def test_live_table_needs_a_first_answer() -> None:
    view = _top.View(Source(f"http://{LOOPBACK}:{free_port()}"), options(), Console())
    with pytest.raises(Unreachable):
        await trio.to_thread.run_sync(view.draw)


async def test_top_in_a_terminal_is_live(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    async with make_pool() as pool:
        await use(pool, CACHE)
        async with served(StatusApp(pool)) as url:
            assert await top(url, "--count", "2", "--interval", "0") == 0
            counted = capsys.readouterr().out
            monkeypatch.setattr(_top, "count", lambda: range(2))  # else it has no end
            assert await top(url, "--interval", "0") == 0
    put_aside = "\x1b[?1049h"  # the screen comes back at the end
    assert put_aside not in counted
    assert "1 idle" in counted
    assert put_aside in capsys.readouterr().out


async def test_top_cannot_be_steered_by_names(capsys: pytest.CaptureFixture[str]) -> None:
    async with make_pool() as pool:
        await use(pool, conpool.UnixEndpoint("/tmp/[bold]x[/bold]"))
        async with served(StatusApp(pool)) as url:
            assert await top(url) == 0
    printed = capsys.readouterr().out
    assert "unix:/tmp/[bold]x[/bold]" in printed
    name = plain("\x1b[2J\nhost\u202e")
    assert name == "?[2J?host?"


@pytest.mark.parametrize(
    "url",
    ["nonesuch", "file:///etc/passwd", "http://", "http://h:x", "http://h/a b", "http://\xe4"],
)
def test_top_of_a_bad_url_is_a_wrong_argument(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["top", url]) == 2
    printed = capsys.readouterr().err
    assert printed == "conpool top: error: the URL must be like http://host:8000/status\n"


async def test_top_says_why_there_is_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert await top(f"http://user:hunter2@{LOOPBACK}:{free_port()}") == 1
    refused = capsys.readouterr().err
    assert "Connection refused" in refused
    assert "hunter2" not in refused
    async with served(StatusApp()) as url:
        assert await top(f"{url}/nonesuch") == 1
        assert "/nonesuch/stats.json answers 404\n" in capsys.readouterr().err
    async with serving(partial(answer_with, b"<html>")) as port:
        assert await top(f"http://{LOOPBACK}:{port}") == 1
        assert "is not a StatusApp's" in capsys.readouterr().err
    async with serving(partial(answer_with, b'{"pools": [1]}')) as port:
        assert await top(f"http://{LOOPBACK}:{port}") == 1
        assert "is not a StatusApp's" in capsys.readouterr().err


async def answer_with(body: bytes, stream: trio.abc.Stream) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive_some()
    await stream.send_all(b"HTTP/1.0 200 OK\r\n\r\n" + body)
    await stream.aclose()


async def test_top_logs_in_as_the_url_says() -> None:
    heads: list[bytes] = []

    async def note(stream: trio.abc.Stream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some()
        heads.append(head)
        await stream.send_all(b'HTTP/1.0 200 OK\r\n\r\n{"at": 1, "pools": []}')
        await stream.aclose()

    async with serving(note) as port:
        assert await top(f"http://user:hunter%402@{LOOPBACK}:{port}/status/") == 0
    token = base64.b64encode(b"user:hunter@2")
    assert b"Authorization: Basic " + token in heads[0]
    assert heads[0].startswith(b"GET /status/stats.json?top=20&sort=busiest&match= HTTP/1.1")

"""The code in the documentation runs, prints what the pages show, and names only what exists."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import conpool
from conpool.testing import MemoryConnector

from .servers import Certificates, MariaDB, Memcached, Postgres, Valkey

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TUTORIALS = [ROOT / "docs" / "tutorial.rst", ROOT / "docs" / "driver.rst"]
SNIPPETS = sorted((ROOT / "docs" / "snippets").glob("*.py"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES = [
    README,
    *(page for kind in ("*.md", "*.rst") for page in sorted((ROOT / "docs").rglob(kind))),
]
SERVERS = {"mariadb", "redis"}
"""Pages whose code needs a real server."""

FENCED = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
DIRECTIVE = re.compile(r"^( *)\.\. code-block:: python\n\n((?:\1 +\S.*\n|[ ]*\n)+)", re.MULTILINE)
PROMPT = re.compile(r"^ +\$ python (\w+)\.py\n((?: +\S.*\n)+)", re.MULTILINE)
INLINE = re.compile(r"`(?:await |\w+ = )?(pool|conn)\.(\w+)")


def code_in(page: Path) -> list[str]:
    """The pieces of Python that a page shows."""
    text = page.read_text("utf-8") + "\n"
    return FENCED.findall(text) + [textwrap.dedent(m[2]) for m in DIRECTIVE.finditer(text)]


def parse(code: str, origin: str = "piece") -> ast.Module:
    """Parse a piece. Pieces begin in the middle: they may await, and use names of the page."""
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(code, origin, "exec", flags)
    assert isinstance(tree, ast.Module)
    return tree


def test_the_pages_have_code() -> None:
    assert sum(len(code_in(page)) for page in PAGES) > 10


# ── what is shown runs ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda path: path.stem)
def test_a_snippet_runs_as_it_stands(snippet: Path, request: pytest.FixtureRequest) -> None:
    environment = dict(os.environ)
    if snippet.stem.startswith("memcache"):
        # Skipped if memcached is not installed.
        users = "memcached_with_users" if snippet.stem == "memcache_login" else "memcached"
        environment["MEMCACHED_PORT"] = str(request.getfixturevalue(users).port)
    done = subprocess.run(
        [sys.executable, "-W", "error", snippet],
        capture_output=True,
        env=environment,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    place = 0
    for part in shown_outputs().get(snippet.stem, "").split("..."):
        place = same_everywhere(done.stdout).find(part.strip(), place)
        assert place >= 0, f"it does not print {part!r} in this place, but\n{done.stdout}"


@pytest.fixture
def memcached_with_users() -> Iterator[Memcached]:
    with Memcached(users={"app": "secret"}) as server:
        yield server


def shown_outputs() -> dict[str, str]:
    """What the tutorials say that their programs print."""
    pages = "\n".join(page.read_text("utf-8") for page in TUTORIALS)
    return {program: same_everywhere(shown) for program, shown in PROMPT.findall(pages)}


def same_everywhere(printed: str) -> str:
    """What was printed, without the numbers, the width of tables and the breaks of lines."""
    return " ".join(re.sub(r"-{3,}", "---", re.sub(r"\d+(\.\d+)?", "#", printed)).split())


def test_the_tutorials_show_what_their_programs_print() -> None:
    first = {"first", "limits", "timeouts", "cancelled", "retry", "by_hand"}
    second = {path.stem for path in SNIPPETS if path.stem.startswith("memcache")}
    assert set(shown_outputs()) == first | second
    assert len(second) == 5


class AnyPeer(conpool.Connector):
    """Connects to whatever is dialled, in memory; peers answer each line with PONG, and HTTP."""

    def __init__(self, certificates: Certificates) -> None:
        self.certificates = certificates

    async def connect(self, endpoint: conpool.AnyEndpoint) -> trio.abc.Stream:
        return await MemoryConnector(partial(self.serve, endpoint)).connect(endpoint)

    async def serve(self, endpoint: conpool.AnyEndpoint, stream: trio.abc.Stream) -> None:
        if isinstance(endpoint, conpool.Endpoint) and endpoint.tls is not None:
            name = endpoint.tls.server_hostname or endpoint.host
            context = self.certificates.server_context(
                self.certificates.ca.issue_cert(name), alpn=endpoint.tls.alpn
            )
            stream = trio.SSLStream(stream, context, server_side=True)
        async for data in stream:
            if b" HTTP/1.1\r\n" in data:
                await stream.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                continue
            for byte in b"+PONG\r\n" * bytes(data).count(b"\n"):
                await stream.send_all(bytes([byte]))
                await wait_all_tasks_blocked()  # so that the next byte is a piece of its own


@pytest.fixture
def any_peer(
    certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AnyPeer:
    """Whatever a page dials answers, and the files that it names are there."""
    peer = AnyPeer(certificates)
    monkeypatch.setattr(conpool.TCPConnector, "connect", lambda _, endpoint: peer.connect(endpoint))
    shutil.copy(certificates.ca_file, tmp_path / "our-ca.pem")
    shutil.copy(certificates.client_cert, tmp_path / "client.pem")
    shutil.copy(certificates.client_key, tmp_path / "client.key")
    monkeypatch.chdir(tmp_path)
    # The system's authorities are this one alone, and no context is left over from other tests.
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca_file))
    monkeypatch.setattr("conpool._values.tls._shared_contexts", {})
    monkeypatch.setattr(logging.getLogger("conpool"), "handlers", [])  # a page adds one
    return peer


@pytest.fixture
def orders(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database with a table, at the server that the environment names."""
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    monkeypatch.setenv("PGUSER", postgres.user)
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    monkeypatch.setenv("PGPORT", str(postgres.port))
    with psycopg.connect(host=postgres.host, dbname="postgres", autocommit=True) as conn:
        conn.execute("DROP DATABASE IF EXISTS orders WITH (FORCE)")
        conn.execute("CREATE DATABASE orders")
    with psycopg.connect(host=postgres.host, dbname="orders", autocommit=True) as conn:
        conn.execute("CREATE TABLE stock (count int)")


class Here(trio.abc.HostnameResolver):
    """Every name is this machine's."""

    async def getaddrinfo(self, host: Any, port: Any, *args: Any, **options: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


async def read_line(stream: trio.abc.ReceiveStream) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += await stream.receive_some()
    return line


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if p != README and p.stem not in SERVERS],
    ids=lambda path: path.stem,
)
async def test_the_code_of_a_page_runs(
    page: Path, any_peer: AnyPeer, request: pytest.FixtureRequest
) -> None:
    if page.stem == "httpx":
        pytest.importorskip("httpx2", reason="httpx2 is not installed")
    if page.stem == "psycopg":
        request.getfixturevalue("orders")
        trio.socket.set_custom_hostname_resolver(Here())
    if page.stem == "status":
        pytest.importorskip("starlette", reason="Starlette is not installed")
    async with conpool.ConnectionPool(connector=any_peer) as pool:
        names: dict[str, Any] = {
            "endpoint": conpool.Endpoint("peer.example", 7),
            "__name__": "page",
            "pool": pool,
            "read_reply": read_line,
            "request": b"PING\r\n",
        }
        await run_page(page, names)


async def run_page(page: Path, names: dict[str, Any]) -> None:
    for code in code_in(page):
        await run_piece(code, names)


async def run_piece(code: str, names: dict[str, Any]) -> None:
    running = eval(compile(code, "piece", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if inspect.iscoroutine(running):
        await running


async def test_the_code_of_the_redis_page_runs(valkey: Valkey) -> None:
    import redis_client

    endpoint = conpool.Endpoint(valkey.host, valkey.port)
    async with redis_client.open_pool() as pool:
        names = {"endpoint": endpoint, "pool": pool}
        await run_page(page_of("redis"), names)
        await redis_client.execute(pool, endpoint, "FLUSHALL")


async def test_the_code_of_the_mariadb_page_runs(mariadb: MariaDB) -> None:
    pytest.importorskip("trio_mysql", reason="trio-mysql is not installed")
    import mariadb_client

    login = conpool.Login("root", "", "mysql")
    endpoint = conpool.Endpoint(mariadb.host, mariadb.port, login=login)
    driver = mariadb_client.MariaDBDriver()
    async with conpool.ConnectionPool(driver=driver) as pool:
        names = {"endpoint": endpoint, "pool": pool}
        await run_page(page_of("mariadb"), names)


def page_of(stem: str) -> Path:
    return next(page for page in PAGES if page.stem == stem)


async def test_the_httpx_of_the_readme_runs(any_peer: AnyPeer) -> None:
    pytest.importorskip("httpx", reason="httpx is not installed")
    names: dict[str, Any] = {}
    await run_piece(code_in(README)[0], names)
    assert names["response"].status_code == 204


async def test_the_psycopg_of_the_readme_runs(
    postgres: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    pytest.importorskip("conpool.contrib.psycopg", reason="it is not there yet")
    password = quote(postgres.password, safe="")
    account = f"{postgres.user}:{password}@127.0.0.1:{postgres.port}/{postgres.database}"
    code = code_in(README)[1].replace("app@db.example/shop", account)
    assert account in code
    await run_piece(code, {})
    assert "PostgreSQL" in capsys.readouterr().out


def test_the_program_of_the_readme_runs(
    any_peer: AnyPeer, capsys: pytest.CaptureFixture[str]
) -> None:
    *_, program = code_in(README)
    exec(compile(program, str(README), "exec"), {})
    printed = capsys.readouterr().out
    assert printed.startswith(r"b'+PONG\r\n'" + "\n" + r"b'+PONG\r\n'" + "\n")
    assert re.search(r"^127\.0\.0\.1:6379( +\d+){4} +1 +2 ", printed, re.MULTILINE), printed


# ── what is shown is right ──────────────────────────────────────────────────────


def find_examples() -> Iterator[tuple[str, str]]:
    """Each piece of code that teaches, with its place."""
    for path in (*SNIPPETS, *EXAMPLES):
        yield path.name, path.read_text("utf-8")
    for page in PAGES:
        yield from ((f"{page.name}, piece {n}", code) for n, code in enumerate(code_in(page), 1))
    docstring = inspect.getdoc(conpool) or ""
    yield "the package's docstring", textwrap.dedent(docstring.partition(":\n\n")[2])


def test_no_example_takes_one_receive_for_the_whole_reply() -> None:
    seen = 0
    for place, code in find_examples():
        nodes = list(ast.walk(parse(code, place)))
        loops = [n for n in nodes if isinstance(n, ast.While | ast.For | ast.AsyncFor)]
        looped = {inner for loop in loops for inner in ast.walk(loop)}
        for node in nodes:
            if isinstance(node, ast.Attribute) and node.attr == "receive_some":
                assert node in looped, f"{place}, line {node.lineno}: a reply may come in pieces"
                seen += 1
    assert seen > 3


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page_names_only_what_exists(page: Path) -> None:
    for code in code_in(page):
        for node in ast.walk(parse(code, str(page))):
            if isinstance(node, ast.Attribute) and is_conpool(node.value):
                assert node.attr in conpool.__all__, f"conpool.{node.attr}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                check_keywords(node, node.func)
    for owner, name in INLINE.findall(page.read_text("utf-8")):
        kind = conpool.ConnectionPool if owner == "pool" else conpool.Connection
        assert hasattr(kind, name), f"{owner}.{name}"


def test_who_comes_from_another_pool_is_sent_to_what_exists() -> None:
    kinds = [conpool.Connector, conpool.Driver, conpool.EndpointStats, conpool.NativeDriver]
    kinds += [conpool.LatencySummary, conpool.Observer, conpool.Endpoint]
    kinds += [conpool.Connection, conpool.ConnectionPool]
    known = {"async", "await", "check", "math", "None", "queue", "trio"}
    known |= {*conpool.__all__, *conpool.CloseReason.__members__}
    known |= {field.name for field in dataclasses.fields(conpool.PoolConfig)}
    known |= {name for kind in kinds for name in dir(kind) if hasattr(kind, name)}
    seen = 0
    for row in re.findall(
        r"^\|.*\|(.*)\|$", page_of("coming_from").read_text("utf-8"), re.MULTILINE
    ):
        here = re.sub(r"there is no .*", "", row)
        for owner, name in re.findall(r"`(?:await )?(?:(\w+)\.)?(\w+)[^`]*`", here):
            seen += 1
            if owner in conpool.__all__:
                assert hasattr(getattr(conpool, owner), name), row
            elif owner in {"pool", "conn"}:
                kind = conpool.ConnectionPool if owner == "pool" else conpool.Connection
                assert hasattr(kind, name), row
            elif owner != "trio":
                assert name in known or name in {"timeout", "fresh"}, row
    assert seen > 100


def is_conpool(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "conpool"


def check_keywords(call: ast.Call, func: ast.Attribute) -> None:
    """What is called on `conpool` or `pool` has the parameters that it is given."""
    owner = conpool if is_conpool(func.value) else conpool.ConnectionPool
    if owner is not conpool and not (isinstance(func.value, ast.Name) and func.value.id == "pool"):
        return
    parameters = inspect.signature(getattr(owner, func.attr)).parameters
    for keyword in call.keywords:
        assert keyword.arg in parameters, f"{func.attr}({keyword.arg}=)"


def test_the_reference_has_every_public_name() -> None:
    pages = (ROOT / "docs" / "reference").glob("*.rst")
    text = "\n".join(page.read_text("utf-8") for page in pages)
    documented = set(re.findall(r"^\.\. (?:auto\w+|py:type):: (\w+)", text, re.MULTILINE))
    assert set(conpool.__all__) <= documented


def test_the_design_says_why_each_connection_is_closed() -> None:
    page = (ROOT / "docs" / "design.rst").read_text("utf-8")
    section = page.partition("\nGiving it back\n")[2].partition("\nThe probe\n")[0]
    named = set(re.findall(r"``([A-Z_]+)``", section))
    assert named == set(conpool.CloseReason.__members__)


def test_the_guarantees_have_every_number_once_and_the_table_names_no_other() -> None:
    page = (ROOT / "docs" / "guarantees.rst").read_text("utf-8")
    numbers = re.findall(r"^   \* - \*\*G(\w+)\*\*", page, re.MULTILINE)
    assert len(numbers) == len(set(numbers))
    assert {str(number) for number in range(1, 35)} | {"17b"} == set(numbers)
    table = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    for first, last in re.findall("\\bG(\\w+)(?:\N{EN DASH}G(\\w+))?", table):
        assert {first, last or first} <= set(numbers)


def test_every_option_is_explained_where_one_looks_for_it() -> None:
    """Options that change what callers see are in a how-to, not only in the reference."""
    guides = "\n".join(page.read_text("utf-8") for page in (ROOT / "docs/howto").glob("*.rst"))
    options = {field.name for field in dataclasses.fields(conpool.PoolConfig)}
    later = {"circuit_breaker", "queue_target_delay"}
    assert {name for name in options - later if name not in guides} == set()

"""Draws what the commands show in a terminal of 80 columns: `nox -s screens`, then look at each.

Each command runs in a terminal of its own, and what that shows at the end becomes
`docs/_static/cli-NAME.svg`. A service with some traffic answers `probe` and `top`.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import random
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import hypercorn.trio
import pyte
import trio
import trustme
from hypercorn.config import Config
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import MONOKAI
from rich.text import Text

import conpool
from conpool.contrib.asgi import StatusApp
from conpool.testing import MemoryConnector

PLACE: Final = Path(__file__).parent / "_static"
WIDTH, HEIGHT = 80, 50
PLAIN_PORT, TLS_PORT = 8000, 8443
CA: Final = "ca.pem"
COMMANDS: Final = {
    "demo": "conpool demo",
    "bench": "conpool bench",
    "probe": f"conpool probe https://localhost:{TLS_PORT}/health --ca {CA} --wait 10",
    "top": f"conpool top http://127.0.0.1:{PLAIN_PORT}/ --count 3",
}
PEERS: Final = {
    "postgresql://app@db/orders": 8,
    "redis://cache": 5,
    "tcp://payments:443": 14,
    "tcp://replica:5432": 1,
}
"""How many tasks use each peer of the service."""

COLORS: Final = {"default": None, "brown": "yellow", "brightblack": "bright_black"}
FONTS: Final = re.compile(r"@font-face \{.*?\}", re.DOTALL)
"""They would be fetched from another site."""


def run_in_terminal(command: str, folder: Path) -> pyte.Screen:
    """Run a command, and return the terminal as it leaves it."""
    screen = pyte.Screen(WIDTH, HEIGHT)
    stream = pyte.ByteStream(screen)
    stream.feed(f"$ {command}\r\n".encode())
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", *shlex.split(command)],
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=its,
        cwd=folder,
        env=os.environ | {"TERM": "xterm-256color", "PYTHONPATH": str(PLACE.parents[1])},
    ) as child:
        os.close(its)
        with suppress(OSError):  # that is how its end shows
            while said := os.read(ours, 65_536):
                stream.feed(said)
        os.close(ours)
    if child.returncode:
        raise SystemExit(f"{command} ended with {child.returncode}: {screen.display}")
    return screen


def read_lines(screen: pyte.Screen) -> Iterator[Text]:
    """Yield the lines of a terminal with their colours, without the blank ones at its end."""
    last = max(number for number, line in enumerate(screen.display) if line.strip())
    for number in range(last + 1):
        line = Text()
        cells = [screen.buffer[number][column] for column in range(WIDTH)]
        for style, run in groupby(cells, key=style_of):
            line.append("".join(cell.data for cell in run), style)
        line.rstrip()
        yield line


def style_of(cell: pyte.screens.Char) -> Style:
    color = COLORS.get(cell.fg, cell.fg)
    is_hex = color is not None and re.fullmatch("[0-9a-f]{6}", color)
    return Style(color=f"#{color}" if is_hex else color, bold=cell.bold)


def draw(name: str, screen: pyte.Screen) -> None:
    """Write the picture."""
    console = Console(file=io.StringIO(), record=True, width=WIDTH)
    for line in read_lines(screen):
        console.print(line, soft_wrap=True)
    picture = console.export_svg(title=f"conpool {name}", theme=MONOKAI, unique_id=f"cli-{name}")
    lines = (line.rstrip() for line in FONTS.sub("", picture).splitlines())
    text = "\n".join(line for line in lines if line)
    (PLACE / f"cli-{name}.svg").write_text(f"{text}\n", "utf-8")


async def answer(stream: trio.abc.Stream) -> None:
    """Answer each request after a while."""
    async for data in stream:
        await trio.sleep(random.uniform(0.002, 0.02))
        await stream.send_all(data)


async def use(pool: conpool.ConnectionPool[None], endpoint: conpool.AnyEndpoint) -> None:
    """Ask for ever."""
    with suppress(conpool.NoHealthyEndpoint):
        while True:
            async with pool.connection(endpoint) as conn:
                await conn.send_all(b"?")
                while not await conn.receive_some():
                    pass
            await trio.sleep(random.expovariate(100))


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[None]:
    """Run a service with some traffic, and its status page, while the block runs."""
    authority = trustme.CA(organization_name="An example authority")
    authority.cert_pem.write_to_path(str(folder / CA))
    expiry = datetime.now(UTC) + timedelta(days=60.5)
    certificate = authority.issue_cert("localhost", common_name="localhost", not_after=expiry)
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    config = Config()
    config.bind, config.insecure_bind = [f"127.0.0.1:{TLS_PORT}"], [f"127.0.0.1:{PLAIN_PORT}"]
    config.certfile, config.keyfile = str(folder / "cert.pem"), str(folder / "key.pem")
    config.errorlog = None
    limits = conpool.PoolConfig(max_connections_per_endpoint=10, max_connections=60)
    async with trio.open_nursery() as nursery:
        connector = MemoryConnector(answer)
        async with conpool.ConnectionPool(limits, connector=connector, name="main") as pool:
            app: Any = StatusApp(pool)
            serve = partial(hypercorn.trio.serve, app, config)
            await nursery.start(lambda task_status: serve(task_status=task_status))
            for url, tasks in PEERS.items():
                for _ in range(tasks):
                    nursery.start_soon(use, pool, conpool.Endpoint.from_url(url))
            await trio.sleep(1)
            pool.mark_unhealthy(conpool.Endpoint.from_url(url))
            yield
            nursery.cancel_scope.cancel()


async def main(*names: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in names or COMMANDS:
            if name in {"probe", "top"}:
                async with serving(folder):
                    run = partial(run_in_terminal, COMMANDS[name], folder)
                    screen = await trio.to_thread.run_sync(run)
            else:  # these measure, so nothing else runs
                screen = run_in_terminal(COMMANDS[name], folder)
            draw(name, screen)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])

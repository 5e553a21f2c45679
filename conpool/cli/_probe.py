"""`conpool probe`: how a server takes to kept connections, and what that means for a pool."""

from __future__ import annotations

import json
import socket
import ssl
import sys
from argparse import Namespace
from typing import Final
from urllib.parse import quote, urlsplit

import trio

import conpool
from conpool.cli import _probe_steps as steps
from conpool.cli._probe_report import Findings, describe
from conpool.cli._screen import Screen

_UNRESERVED: Final = "/?#%:@!$&'()*+,;=~[]"
"""What a URL may have in its path and query as it is, besides letters and digits."""


def run(options: Namespace, screen: Screen) -> int:
    """Probe the server of a URL; return 0 if it can be used, 1 if not, 2 for a bad URL."""
    try:
        target = _read_target(options)
    except (conpool.ConfigError, OSError, ssl.SSLError) as error:
        print(f"conpool probe: error: {error}", file=sys.stderr)
        return 2
    findings = trio.run(_probe, target, options, screen)
    print(json.dumps(findings.to_dict(), indent=2) if options.json else describe(findings))
    return 1 if findings.error else 0


def _read_target(options: Namespace) -> steps.Target:
    """Read the URL.

    Raises:
        ConfigError: It is none that can be dialled.
        OSError: The file with the authorities cannot be read.
    """
    url: str = options.url
    endpoint = conpool.Endpoint.from_url(url)
    exchange = _find_exchange(url)
    if endpoint.tls is None:
        return steps.Target(endpoint, exchange, options.timeout)
    is_web = url.lower().startswith("https:")
    contexts = [_make_context(options) for _ in range(2)]
    if is_web:
        contexts[0].set_alpn_protocols(["h2", "http/1.1"])
        contexts[1].set_alpn_protocols(["http/1.1"])  # we speak no other
    tls = conpool.TLS(contexts[1], https_compatible=True)
    endpoint = conpool.Endpoint.from_url(url, tls=tls)
    return steps.Target(endpoint, exchange, options.timeout, contexts[0])


def _make_context(options: Namespace) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.ca)
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _find_exchange(url: str) -> steps.Exchange | None:
    scheme = url.partition(":")[0].lower()
    if scheme in {"http", "https"}:
        parts = urlsplit(url)
        query = f"?{parts.query}" if parts.query else ""
        lines = (
            f"HEAD {quote((parts.path or '/') + query, safe=_UNRESERVED)} HTTP/1.1",
            f"Host: {parts.netloc.rpartition('@')[2]}",
            f"User-Agent: conpool/{conpool.__version__}",
            "Accept: */*",
        )
        request = "\r\n".join([*lines, "", ""]).encode()
        return steps.Exchange("HEAD", request, b"\r\n\r\n", "https")
    if scheme in {"redis", "rediss"}:
        return steps.Exchange("PING", b"PING\r\n", b"\r\n", "rediss")
    if scheme == "memcached":
        return steps.Exchange("version", b"version\r\n", b"\r\n")
    return None


async def _probe(target: steps.Target, options: Namespace, screen: Screen) -> Findings:
    findings = Findings(str(target.endpoint))
    try:
        await _connect(target, findings)
        if target.context is not None:
            with steps.explained(target, "tls"), trio.fail_after(target.timeout):
                findings.tls = await steps.look_at_tls(target)
        if target.exchange is None:
            with steps.explained(target, "open"):
                findings.greeting = await steps.listen(target)
        total = options.requests + steps.FRESH
        with (
            steps.explained(target, "open"),
            screen.show_progress("fresh and kept connections", total) as advance,
        ):
            findings.reuse = await steps.measure_reuse(target, options.requests, advance)
        if options.wait:
            with (
                steps.explained(target, "open"),
                screen.show_progress("idle, seconds", int(options.wait)) as advance,
            ):
                findings.idle = await steps.watch_idle(target, options.wait, advance)
    except steps.StepFailed as error:
        findings.error = str(error)
    return findings


async def _connect(target: steps.Target, findings: Findings) -> None:
    """Find the addresses, and try each of them.

    Raises:
        StepFailed: None of them can be reached.
    """
    endpoint = target.endpoint
    if isinstance(endpoint, conpool.UnixEndpoint):
        findings.attempts = [await steps.try_address(socket.AF_UNIX, endpoint.path, target.timeout)]
    else:
        with steps.explained(target, "resolve"), trio.fail_after(target.timeout):
            findings.resolve_seconds, addresses = await steps.resolve(endpoint)
        for family, address in addresses:
            findings.attempts.append(await steps.try_address(family, address, target.timeout))
    if all(attempt.error for attempt in findings.attempts):
        raise steps.StepFailed(f"no address of {endpoint} can be reached")

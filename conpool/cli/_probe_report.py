"""What `conpool probe` found, as lines for people, with a verdict in words."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import conpool
from conpool._stats.report import duration
from conpool.cli._probe_steps import Attempt, Encryption, Idle, Reuse
from conpool.cli._screen import WIDTH

_LABEL_WIDTH: Final = 12

_MARGIN: Final = 0.8
"""Share of the server's time after which we had better close an idle connection ourselves."""

_SOON_DAYS: Final = 14

_ERRORS: Final = ("4", "5")
"""How the status of an error begins."""


@dataclass(slots=True)
class Findings:
    """What the steps found, as far as they came."""

    endpoint: str
    resolve_seconds: float | None = None
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    tls: Encryption | None = None
    greeting: bytes = b""
    reuse: Reuse | None = None
    idle: Idle | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        idle = self.idle and self.idle._asdict() | {"said": _text(self.idle.said)}
        return {
            "endpoint": self.endpoint,
            "resolve_seconds": self.resolve_seconds,
            "connect": [attempt._asdict() for attempt in self.attempts],
            "tls": self.tls and self.tls._asdict(),
            "greeting": _text(self.greeting),
            "reuse": self.reuse and self.reuse._asdict(),
            "idle": idle,
            "error": self.error,
            "verdict": list(judge(self)),
        }


def describe(findings: Findings) -> str:
    """Lay out the findings in 80 columns."""
    lines = [findings.endpoint, ""]
    for label, text in _list_facts(findings):
        indent = " " * (_LABEL_WIDTH + 2)
        first = f"  {label:{_LABEL_WIDTH}}"
        lines.append(textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=indent))
    lines.append("")
    lines += (textwrap.fill(sentence, WIDTH) for sentence in judge(findings))
    return "\n".join(lines)


def _list_facts(findings: Findings) -> Iterator[tuple[str, str]]:
    if findings.resolve_seconds is not None:
        count = len(findings.attempts)
        addresses = f"{count} {'address' if count == 1 else 'addresses'}"
        yield "resolve", f"{duration(findings.resolve_seconds)}, {addresses}"
    for attempt in findings.attempts:
        outcome = attempt.error if attempt.seconds is None else duration(attempt.seconds)
        yield "connect", f"{outcome}, {attempt.address}"
    if findings.tls is not None:
        yield from _list_tls_facts(findings.tls)
    if findings.greeting:
        yield "greeting", f"{_text(findings.greeting)!r}"
    if findings.reuse is not None:
        reuse = findings.reuse
        what = f"{reuse.what} ({reuse.reply})" if reuse.reply else reuse.what
        yield "fresh", f"{duration(reuse.fresh)} for {what} on a connection of its own"
        if reuse.kept is not None:
            yield "kept", f"{duration(reuse.kept)} for {reuse.what} on a kept connection"
    if findings.idle is not None:
        end = "closed by the server" if findings.idle.is_closed else "still open"
        yield "idle", f"{end} after {duration(findings.idle.waited)}"


def _list_tls_facts(tls: Encryption) -> Iterator[tuple[str, str]]:
    alpn = f", ALPN {tls.alpn}" if tls.alpn else ", no ALPN"
    yield "tls", f"{duration(tls.seconds)}, {tls.version}, {tls.cipher}{alpn}"
    if tls.days_left is not None:
        days = _count_days(tls.days_left)
        yield "certificate", f"for {tls.subject}, from {tls.issuer}, {days} left"
    else:
        yield "certificate", "not checked"


def judge(findings: Findings) -> Iterator[str]:
    """Say in sentences what the findings mean for a pool."""
    if findings.error is not None:
        yield f"It failed: {findings.error}."
        return
    if any(attempt.error for attempt in findings.attempts):
        yield (
            "Some addresses do not answer. The pool tries the next one after a quarter of a second,"
            " so some dials take longer."
        )
    if findings.greeting:
        yield (
            "The server speaks first, so the pool takes a new connection for dirty and closes it."
            " Read the greeting in a driver's open()."
        )
    elif findings.reuse is not None:
        yield _judge_reuse(findings.reuse, is_plain=findings.tls is None)
    if findings.idle is not None:
        yield from _judge_idle(findings.idle)
    days = None if findings.tls is None else findings.tls.days_left
    if days is not None and days < _SOON_DAYS:
        yield f"The certificate expires in {_count_days(days)}."


def _count_days(number: int) -> str:
    return "1 day" if number == 1 else f"{number} days"


def _judge_reuse(reuse: Reuse, *, is_plain: bool) -> str:
    if reuse.kept is None and is_plain and reuse.reply.startswith("400"):
        # So do servers of HTTPS answer who speaks without TLS.
        return (
            f"The server answered {reuse.reply} and hung up, which says nothing about reuse. Does"
            " it speak TLS on this port? Then write https://."
        )
    if reuse.kept is None and reuse.reply.startswith(_ERRORS):
        return (
            f"The server answered {reuse.reply} and hung up. Some do so after an error alone: probe"
            " a path that it serves."
        )
    if reuse.kept is None:
        return "The server closes each connection after one exchange: a pool saves nothing here."
    ratio = reuse.fresh / reuse.kept
    return (
        f"The server keeps connections. A kept one is {ratio:.3g} times as fast as a fresh one,"
        f" and saves {duration(max(reuse.fresh - reuse.kept, 0.0))} each time."
    )


def _judge_idle(idle: Idle) -> Iterator[str]:
    default = conpool.PoolConfig().max_idle_time
    waited = duration(idle.waited)
    if idle.said:
        yield f"While idle, the server sent {_text(idle.said)!r}: the pool would close it for that."
    if not idle.is_closed:
        yield f"It keeps an idle connection for {waited} or longer."
    elif idle.waited <= default:
        yield (
            f"It closes an idle connection after {waited}. Set max_idle_time below that, to"
            f" {idle.waited * _MARGIN:.2g} say, so that no request meets the close."
        )
    else:
        yield f"It closes an idle connection after {waited}; max_idle_time is {default:g} s: fine."


def _text(data: bytes) -> str:
    return data.decode("latin-1")

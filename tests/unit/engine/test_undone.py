"""What raises while the pool does what its core has decided: all the rest is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from conpool import ConnectError
from conpool._engine.background import Background
from conpool._engine.engine import Engine
from tests.support.pools import HERE, counts, open_pool, settle, use


def break_first(
    patch: pytest.MonkeyPatch, owner: type, name: str, errors: list[BaseException]
) -> None:
    """Have the first calls of `owner.name` raise `errors`."""
    usual: Callable[..., object] = getattr(owner, name)

    def broken(*args: Any, **options: Any) -> object:
        if errors:
            raise errors.pop()
        return usual(*args, **options)

    patch.setattr(owner, name, broken)


async def test_what_raises_is_tried_again_and_the_others_are_done_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pool() as pool:
        await use(pool, 3)
        break_first(monkeypatch, Engine, "_close_now", [MemoryError()])
        assert pool.close_idle() == 3
        assert counts(pool) == {"closing": 1}
        await settle()
        assert counts(pool) == {}
    assert "has failed and is tried again" in caplog.text


async def test_an_interrupt_is_raised_when_the_others_are_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_pool() as pool:
        await use(pool, 3)
        break_first(monkeypatch, Engine, "_close_now", [KeyboardInterrupt()])
        with pytest.raises(KeyboardInterrupt):
            pool.close_idle()
        assert counts(pool) == {"closing": 1}
        await settle()
        assert counts(pool) == {}


async def test_a_dial_that_cannot_begin_fails_its_caller(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pool() as pool:
        break_first(monkeypatch, Background, "spawn", [MemoryError(), MemoryError()])
        with pytest.raises(ConnectError), trio.fail_after(1):
            await pool.acquire(HERE)
        assert counts(pool) == {}
        assert await use(pool) == [2]
    assert "has failed for good" in caplog.text

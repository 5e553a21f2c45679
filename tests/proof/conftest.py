"""Runs most of the proofs twice: with observers, and without, on the straight line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .world import World

_TWICE = {
    "test_cancel",
    "test_cancel_release",
    "test_fail_everywhere",
    "test_schedules",
    "test_schedules_pool",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] in _TWICE:
        metafunc.parametrize("is_heard", [True, False], ids=["heard", "unheard"], indirect=True)


@pytest.fixture(autouse=True)
def is_heard(request: pytest.FixtureRequest) -> Iterator[None]:
    World.is_heard = getattr(request, "param", True)
    yield
    World.is_heard = True

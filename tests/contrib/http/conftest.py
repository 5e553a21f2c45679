"""Each test of this folder runs with httpx and with httpx2, where they are installed."""

from __future__ import annotations

import importlib

import pytest

from .clients import LIBRARIES, Client


@pytest.fixture(params=LIBRARIES)
def client(request: pytest.FixtureRequest) -> Client:
    """The two clients have the same names, so a test need not know which one it has."""
    name: str = request.param
    lib = pytest.importorskip(name, reason=f"{name} is not installed")
    pytest.importorskip("h2", reason="h2 is not installed")
    return Client(lib, importlib.import_module(f"conpool.contrib.{name}"))

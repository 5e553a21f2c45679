from __future__ import annotations

import pytest

from conpool._extend.connector import Connector
from conpool._values.endpoint import Endpoint


class Unfinished(Connector):
    """Overrides nothing."""


async def test_connect_is_needed() -> None:
    with pytest.raises(NotImplementedError, match=r"Unfinished has no connect\(\)"):
        await Unfinished().connect(Endpoint("db.example", 5432))


async def test_addresses_are_not_known_unless_overridden() -> None:
    assert await Unfinished().addresses(Endpoint("db.example", 5432)) is None

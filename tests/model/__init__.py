"""A model checker for the real core: every state that a small world can reach, every law in each.

`world` says what can happen next, `state` tells states apart, `search` visits them all. The core is
not modelled: it is the core itself, copied for each event.
"""

from __future__ import annotations

from .search import Report, explore
from .world import World

__all__ = ["Report", "World", "explore"]

"""What this run of the tests has tried, to be printed at its end."""

from __future__ import annotations

from collections import Counter

tried: Counter[str] = Counter()

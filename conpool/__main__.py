"""`python -m conpool` is `conpool`."""

from __future__ import annotations

import sys

from conpool.cli import main

if __name__ == "__main__":
    sys.exit(main())

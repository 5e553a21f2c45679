"""Cases that broke other pools, run against those: `python -m rivals`, or `nox -s rivals`.

Each case is written once and runs on every pool to which it applies, on trio and on asyncio. The
table shows only what was observed.
"""

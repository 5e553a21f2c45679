"""The cases that broke other pools, run against those pools: `python -m rivals`, or `nox -s rivals`.

Each case is written once and runs on every pool to which it applies, whatever library that pool runs
on. Only what was seen is printed.
"""

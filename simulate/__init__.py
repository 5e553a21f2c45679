"""Bad days in virtual time: real pools, simulated servers, and pictures that explain the defaults.

Run it with `nox -s simulate` or `python -m simulate`.
"""

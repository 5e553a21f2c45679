"""What a lease costs: `python -m bench`, or `nox -s bench`.

Every comparison is made within one run, in rounds that take turns, so that whatever else the
machine is doing hits all alike. Believe the ratios, not the microseconds.
"""

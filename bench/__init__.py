"""What a lease costs: `python -m bench`, or `nox -s bench`.

Every comparison is made within one run, in rounds that take turns, so that other work of the
machine slows all of them down alike. Compare ratios, not absolute times.
"""

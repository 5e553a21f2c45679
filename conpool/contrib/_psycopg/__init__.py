"""psycopg's `AsyncConnection` on trio, and what a pool must know of it.

Only `inside` uses names that psycopg calls private.
"""

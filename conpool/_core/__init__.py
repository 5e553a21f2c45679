"""The whole policy of the pool, pure: it takes `now` as an argument, awaits nothing, does no I/O.

Nothing here imports trio, so the model checker can visit every state of the real code.
"""

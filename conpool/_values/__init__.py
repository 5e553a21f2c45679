"""What users build: immutable values, checked once when they are built.

Nothing here opens a connection, and every other folder may import it.
"""

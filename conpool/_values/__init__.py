"""What users build: immutable values, checked once when they are built.

Nothing here does I/O or keeps state, and every other folder may import it.
"""

"""Does what the core has decided, and reports to the core what came of it.

Only this folder calls the core and the engine one after the other.
"""

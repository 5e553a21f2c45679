"""Does what the core has decided, and reports to the core what came of it.

Others call the core and the engine one after the other only where they spell out `report`.
"""

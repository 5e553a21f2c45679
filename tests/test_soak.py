"""A few seconds of the soak: that it runs, not how long it takes."""

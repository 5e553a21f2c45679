"""conpool under other libraries: one module for each, which needs the extra of that name."""

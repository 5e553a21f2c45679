"""From an endpoint to an open stream."""

"""One open connection: what has moved on it, whether it is fit for the next lease, its close."""

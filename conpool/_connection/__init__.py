"""One open connection: what has moved on it, whether another lease may have it, and its close."""

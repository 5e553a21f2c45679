"""What users call, and how a pool opens, is tended and ends."""

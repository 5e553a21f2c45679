"""What can go wrong, and how an error explains itself."""

"""Never run: these files are what the type checkers must accept, and, where marked, refuse."""

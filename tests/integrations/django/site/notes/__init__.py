"""Notes, in one database."""

"""Commits that several calls share: their transaction, the calls, and the memory that they update."""

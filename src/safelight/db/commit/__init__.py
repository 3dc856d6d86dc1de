"""Commits that several calls share: the transaction of one, its calls, and what is kept in mind after it."""

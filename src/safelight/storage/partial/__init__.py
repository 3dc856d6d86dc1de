"""Uploads that arrive in chunks and survive broken connections (tus)."""

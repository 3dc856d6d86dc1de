"""Uploads that come in chunks and survive broken connections (tus)."""

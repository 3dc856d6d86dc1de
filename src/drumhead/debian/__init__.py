"""Debian's archive: which mirror, signed indexes, and the files inside a .deb."""

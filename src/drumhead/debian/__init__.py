"""Debian's archive: mirrors, signed indexes, and the files in a .deb."""

"""Untrusted data from outside: names of files, kinds of photos, text to show, and records that msgspec refuses."""

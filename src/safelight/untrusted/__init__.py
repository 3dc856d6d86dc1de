"""Untrusted data from outside: names of files, kinds of photos, and text to show."""

"""Encode pixels into a finished file."""

"""Helpers for tests in real browsers."""

"""Helpers for images, machines and containers in drumhead's tests."""

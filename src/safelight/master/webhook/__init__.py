"""Webhooks: allowed addresses, signatures, and the calls."""

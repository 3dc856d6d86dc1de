"""Webhooks: who may be called, and the calls themselves."""

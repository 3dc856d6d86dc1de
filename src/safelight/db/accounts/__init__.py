"""Tenants, keys, sessions and the audit log: the contract and the routes. The backends store them beside the tasks."""

"""Tenants, keys, sessions and the audit log: the contract and the routes; the backends keep them beside the tasks."""

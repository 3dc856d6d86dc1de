"""Access control of the master: API keys, sessions, signed links, tenants with their limits, and the audit log."""

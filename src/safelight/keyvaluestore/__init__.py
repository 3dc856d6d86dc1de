"""The key-value store: where the services register and find one another."""

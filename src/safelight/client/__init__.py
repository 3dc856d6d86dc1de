"""Clients: one file a service, the same methods as the service's store, over HTTP."""

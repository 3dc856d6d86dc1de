"""Clients: one file for each service, with the methods of the service's store, over HTTP."""

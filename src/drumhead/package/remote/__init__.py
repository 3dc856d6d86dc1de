"""Remotes for pulling and pushing packages: HTTP directories and OCI registries."""

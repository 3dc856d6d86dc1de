"""The servers of distributed backends, each from its own package."""

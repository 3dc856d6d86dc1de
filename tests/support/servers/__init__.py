"""The servers of distributed backends, each from its own package."""

BUCKETS = {"s3": "bucket_url", "azure": "azure_url", "google": "google_url"}
"""By provider of buckets: the fixture that makes a place in one."""

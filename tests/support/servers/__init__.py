"""The servers of distributed backends, each from its own package."""

BUCKETS = {"s3": "bucket_url", "azure": "azure_url", "google": "google_url"}
"""The fixtures that return the URL of an empty prefix in a bucket, by provider."""

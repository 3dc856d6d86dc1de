"""The servers of distributed backends, each from its own package."""

import pytest

BUCKETS = {"s3": "bucket_url", "azure": "azure_url", "google": "google_url"}
"""The fixtures that return the URL of an empty prefix in a bucket, by provider."""
PROVIDERS = ["s3", *(pytest.param(name, marks=pytest.mark.slow) for name in BUCKETS if name != "s3")]
"""The providers as parameters. The fast tests use only S3: the emulators of the others are as slow as ten tests."""

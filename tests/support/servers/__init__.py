"""The servers of distributed backends, each from its own package."""

import pytest

BUCKETS = {"s3": "bucket_url", "azure": "azure_url", "google": "google_url"}
"""The fixtures that return the URL of an empty prefix in a bucket, by provider."""
ALL_SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in BUCKETS]
"""The providers as parameters of a suite that the fast tests run with a directory."""
PROVIDERS = ["s3", *ALL_SLOW[1:]]
"""The providers as parameters. The fast tests use only S3: the emulators of the others are as slow as ten tests."""

"""The distributed backend of storage: blobs in a bucket of S3, Google Cloud Storage or Azure, through obstore."""

from safelight.storage.bucket.objects import Bucket
from safelight.storage.bucket.store import BucketStore

__all__ = ["Bucket", "BucketStore"]

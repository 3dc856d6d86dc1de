"""Make links with which clients fetch blobs directly from the bucket, without passing through a service."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit

from safelight.errors import Code, Error
from safelight.storage.bucket import signing
from safelight.storage.bucket.objects import prefix_of
from safelight.storage.bucket.store import blob_key
from safelight.wire import BlobLink, NewBlobLink


class Links:
    """Makes links to the blobs of a bucket that clients reach under a separate URL."""

    def __init__(self, store: str, public: str) -> None:
        """Take the URL of the store and the one for clients. Raises INVALID_REQUEST if they cannot be used."""
        if urlsplit(store).scheme != "s3" or not signing.has_keys():
            detail = "--public-bucket needs --store s3://BUCKET/PREFIX and the keys of S3 in the environment."
            raise Error(Code.INVALID_REQUEST, detail, position="public_bucket")
        parts = urlsplit(public)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
            detail = f"--public-bucket: {public} is not a URL of a bucket, such as https://photos.s3.amazonaws.com."
            raise Error(Code.INVALID_REQUEST, detail, position="public_bucket")
        places = [quote(part) for part in (unquote(parts.path).strip("/"), prefix_of(store)) if part]
        self._base = "/".join([f"{parts.scheme}://{parts.netloc}", *places])

    def make(self, digest: str, new: NewBlobLink) -> BlobLink:
        """Make a link to a blob; the bucket answers with the requested headers."""
        answer = {
            "response-content-type": new.media_type,
            "response-content-disposition": new.disposition,
            "response-cache-control": "private, no-cache",
        }
        return BlobLink(url=signing.presigned(f"{self._base}/{blob_key(digest)}", answer, seconds=new.seconds))

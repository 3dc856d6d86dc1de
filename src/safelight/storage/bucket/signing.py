"""Sign requests to S3 that obstore cannot make (AWS Signature Version 4), with the keys in the environment.

See "Create a signed AWS API request" and "Authenticating requests: using query parameters" in AWS's manuals.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Mapping
from urllib.parse import SplitResult, quote, urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"
_NOTHING = hashlib.sha256(b"").hexdigest()


def has_keys() -> bool:
    """Return whether there are keys in the environment."""
    return {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= os.environ.keys()


def endpoint() -> SplitResult:
    """Return the URL of the S3 API that services use."""
    named = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT")
    return urlsplit(named or f"https://s3.{_region()}.amazonaws.com")


def encoded(query: Mapping[str, str]) -> str:
    """Return a query in the form that is signed."""
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items()))


def headers(method: str, host: str, path: str, query: str) -> dict[str, str]:
    """Return the headers that sign a request without a body."""
    moment = _now()
    sent = {"host": host, "x-amz-content-sha256": _NOTHING, "x-amz-date": moment}
    if token := os.environ.get("AWS_SESSION_TOKEN"):
        sent["x-amz-security-token"] = token
    names = ";".join(sorted(sent))
    signature = _signature(moment, method, path, query, sent, _NOTHING)
    credential = f"{os.environ['AWS_ACCESS_KEY_ID']}/{_scope(moment)}"
    sent["Authorization"] = f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return sent


def presigned(url: str, query: Mapping[str, str], *, seconds: int) -> str:
    """Return a URL to GET an object within some seconds. `url` is encoded; `query` sets response headers."""
    parts, moment = urlsplit(url), _now()
    asked = {
        **query,
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{os.environ['AWS_ACCESS_KEY_ID']}/{_scope(moment)}",
        "X-Amz-Date": moment,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": "host",
    }
    if token := os.environ.get("AWS_SESSION_TOKEN"):
        asked["X-Amz-Security-Token"] = token
    text = encoded(asked)
    signature = _signature(moment, "GET", parts.path, text, {"host": parts.netloc}, "UNSIGNED-PAYLOAD")
    return f"{url}?{text}&X-Amz-Signature={signature}"


def _signature(moment: str, method: str, path: str, query: str, sent: Mapping[str, str], body: str) -> str:
    """Sign a request; `body` is the digest of its body, or the placeholder that S3 accepts instead."""
    lines = [f"{name}:{sent[name]}" for name in sorted(sent)]
    canonical = "\n".join([method, path, query, *lines, "", ";".join(sorted(sent)), body])
    text = "\n".join([_ALGORITHM, moment, _scope(moment), hashlib.sha256(canonical.encode()).hexdigest()])
    secret = ("AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"]).encode()
    for step in (*_scope(moment).split("/"), text):
        secret = hmac.digest(secret, step.encode(), "sha256")
    return secret.hex()


def _scope(moment: str) -> str:
    return f"{moment[:8]}/{_region()}/s3/aws4_request"


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def _now() -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())

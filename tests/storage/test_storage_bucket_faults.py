"""Test that what an operator can have wrong with a bucket is named, with what to do."""

from __future__ import annotations

import pytest

from safelight.errors import Code, Error
from safelight.storage.bucket import Bucket

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("changed", "url", "sentence"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "s3://photos/faults", "Check the credentials"),
        ({"AWS_ACCESS_KEY_ID": "wrong"}, "s3://photos/faults", "Check the credentials"),
        ({}, "s3://absent/faults", "Create the bucket"),
    ],
)
async def test_a_bucket_that_cannot_be_used_says_what_to_do(seaweed, monkeypatch, changed, url, sentence):
    for name, value in {**seaweed.environment(), **changed}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Error, match=sentence):
        async for _ in Bucket(url).listing(""):
            pass


@pytest.mark.parametrize("prefix", ["../x", "a/../b", "a/%2e%2e/b", "./a", "x?y=1", "x#z", "a//b"])
def test_a_prefix_that_would_become_another_one_is_refused(prefix):
    with pytest.raises(Error) as refused:
        Bucket(f"s3://photos/{prefix}")
    assert refused.value.code is Code.INVALID_REQUEST

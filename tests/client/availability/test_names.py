"""Test that a client takes text that cannot be a host's name for an unknown name."""

import pytest

from safelight.client.master import Client
from safelight.errors import Code, Error


@pytest.mark.parametrize("host", ["db..example", f"{'x' * 64}.example"])
async def test_a_host_that_cannot_be_a_name_is_unknown(host: str) -> None:
    async with Client.connect(f"{host}:8003") as client:
        with pytest.raises(Error, match="name or service not known") as refused:
            await client._connection.call("GET", "/healthz", bytes, retry=False)
    assert refused.value.code is Code.UNAVAILABLE

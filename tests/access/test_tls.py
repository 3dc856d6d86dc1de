"""TLS on a service, with a certificate that openssl made."""

from __future__ import annotations

import asyncio
import ssl

import aiohttp
import pytest

from safelight.client.base import Connection, Fixed, ServiceClient, session

from .conftest import ELSEWHERE


async def openssl(*arguments: str) -> None:
    """Run openssl, and say what it said when it fails."""
    process = await asyncio.create_subprocess_exec(
        "openssl", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


@pytest.fixture
async def certificate(tmp_path):
    """A certificate for localhost and 127.0.0.1, which is its own authority, and its key."""
    files = tmp_path / "certificate.pem", tmp_path / "key.pem"
    await openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-out", str(files[0]), "-keyout", str(files[1]),
    )  # fmt: skip
    return tuple(map(str, files))


async def test_a_service_with_a_certificate_speaks_tls_alone(plane, certificate, http):
    public, private = certificate
    store = await plane.start("keyvaluestore", tls_certificate=public, tls_key=private, trusted_proxies=ELSEWHERE)
    assert store.url.startswith("https://")

    async with session(authorities=public) as trusting:
        for host in ("localhost", "127.0.0.1"):
            url = f"https://{host}:{store.port}"
            assert await ServiceClient(Connection(trusting, Fixed(url))).health()
            async with trusting.get(f"{url}/some-key") as answer:
                assert answer.status == 401
            async with trusting.get(f"{url}/some-key", headers=plane.credentials) as answer:
                assert answer.status == 404

    # The system's authorities know nothing of this certificate.
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await http.get(f"https://localhost:{store.port}/healthz")
    # Plain HTTP gets no answer, and certainly none with anything in it.
    with pytest.raises(aiohttp.ClientError):
        await http.get(f"http://localhost:{store.port}/healthz")
    # Protocols with known holes are not spoken.
    old = ssl.create_default_context(cafile=public)
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        await asyncio.open_connection("localhost", store.port, ssl=old)


async def test_services_call_one_another_by_tls(plane, certificate):
    public, private = certificate
    tls = {"tls_certificate": public, "tls_key": private, "tls_authorities": public}
    await plane.start_all(**tls, trusted_proxies=ELSEWHERE)
    async with session(authorities=public) as trusting:
        url = f"{plane.url('master')}/summary"
        assert url.startswith("https://")
        # The answer comes from db.
        async with trusting.get(url, headers=plane.credentials) as answer:
            assert answer.status == 200

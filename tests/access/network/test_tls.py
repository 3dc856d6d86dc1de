"""Test TLS on a service, with a certificate made by openssl."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import aiohttp
import pytest

from access.conftest import ELSEWHERE
from master.conftest import System
from safelight import serve
from safelight.access.connections import tls
from safelight.access.policy import PolicyError
from safelight.client.availability.instances import Several
from safelight.client.base import Connection, ServiceClient, session
from safelight.client.master import Client
from safelight.errors import Error
from safelight.storage.__main__ import Config as StorageConfig
from safelight.storage.__main__ import build as build_storage
from safelight.storage.directory import DirectoryStore
from storage import content
from support.photos import photo
from support.programs.until import until


async def openssl(*arguments: str) -> None:
    """Run openssl; fail with its output if it fails."""
    process = await asyncio.create_subprocess_exec(
        "openssl", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


@pytest.fixture
async def certificate(tmp_path):
    """Return a self-signed certificate for localhost and 127.0.0.1, and its key."""
    return await made(tmp_path)


ECDSA = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
RSA = ("-newkey", "rsa:2048")


async def made(directory, *, type=ECDSA):
    files = directory / "certificate.pem", directory / "key.pem"
    await openssl(
        "req", "-x509", *type, "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-out", str(files[0]), "-keyout", str(files[1]),
    )  # fmt: skip
    return tuple(map(str, files))


async def refuse(_, writer):
    """Answer as a server without TLS."""
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


async def test_a_service_with_a_certificate_speaks_tls_alone(plane, certificate, http):
    public, private = certificate
    store = await plane.start("keyvaluestore", tls_certificate=public, tls_key=private, trusted_proxies=ELSEWHERE)
    assert store.url.startswith("https://")

    async with session(authorities=public) as trusting:
        for host in ("localhost", "127.0.0.1"):
            url = f"https://{host}:{store.port}"
            assert await ServiceClient(Connection(trusting, Several(url))).health()
            async with trusting.get(f"{url}/some-key") as answer:
                assert answer.status == 401
            async with trusting.get(f"{url}/some-key", headers=plane.credentials) as answer:
                assert answer.status == 404

    async with session(authorities=public) as trusting, await asyncio.start_server(refuse, "127.0.0.1", 0) as plain:
        plain_port = plain.sockets[0].getsockname()[1]
        for client, url, said in (
            (http, f"https://localhost:{store.port}", "not trusted: self-signed certificate. SSL_CERT_FILE names"),
            (trusting, f"https://[::ffff:127.0.0.1]:{store.port}", "Give the name that its certificate is for"),
            (http, f"https://127.0.0.1:{plain_port}", "TLS failed: .*. Does the service speak TLS there"),
            (http, f"http://localhost:{store.port}", "connection was closed|connection reset"),
        ):
            with pytest.raises(Error, match=said):
                await Connection(client, Several(url), retry_for=0.0).call("GET", "/healthz", bytes)

    # None of the system's authorities has signed this certificate.
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await http.get(f"https://localhost:{store.port}/healthz")
    # A request without TLS gets no answer.
    with pytest.raises(aiohttp.ClientError):
        await http.get(f"http://localhost:{store.port}/healthz")
    # Old versions of the protocol, with known weaknesses, are refused.
    old = ssl.create_default_context(cafile=public)
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionResetError)):  # depending on Python's version
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


GET = """
import asyncio, ssl, sys
from safelight.client.base import session
import aiohttp

def read():
    return aiohttp.connector._SSL_CONTEXT_VERIFIED.cert_store_stats()["x509"]

async def main(url):
    before = read()
    async with session() as http:
        for _ in range(2):
            async with http.get(url) as answer:
                print(before, read(), answer.status)

print(ssl.create_default_context().cert_store_stats()["x509"])
asyncio.run(main(*sys.argv[1:]))
"""
"""Prints how many authorities the system has, and how many aiohttp has read before a connection and after it."""


async def test_the_authorities_of_the_system_are_read_by_the_first_connection(plane, certificate, tmp_path):
    public, private = certificate
    (tmp_path / "other").mkdir()
    other, _ = await made(tmp_path / "other")
    store = await plane.start("keyvaluestore", tls_certificate=public, tls_key=private, trusted_proxies=ELSEWHERE)

    async def get(authorities: str) -> tuple[str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", GET, f"https://localhost:{store.port}/healthz"),
            env={**os.environ, "SSL_CERT_FILE": authorities, "SSL_CERT_DIR": str(tmp_path / "none")},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        printed, failure = await process.communicate()
        return printed.decode(), failure.decode()

    assert await get(public) == ("1\n0 1 200\n0 1 200\n", "")
    printed, failure = await get(other)
    assert printed == "1\n"
    assert "certificate verify failed: self-signed certificate" in failure


SIZES_AND_RANGES = [(1000, None), (3 << 20, None), (1001, range(10)), ((3 << 20) + 1, range(7, 2 << 20))]
"""Bytes to send over TLS, each from another blob: small ones and several blocks, all of them or a part."""


async def received(http, url: str, span: range | None) -> bytes:
    """Download all bytes or a range; fail if the sender stalls."""
    headers = {} if span is None else {"Range": f"bytes={span.start}-{span.stop - 1}"}
    async with asyncio.timeout(30), http.get(url, headers=headers) as answer:
        assert answer.status == (200 if span is None else 206)
        return await answer.read()


@pytest.mark.slow
async def test_the_first_download_of_a_blob_over_tls_has_all_its_bytes(certificate, tmp_path):
    """Storage verifies a blob when it is read for the first time, and so reads its file to the end."""
    public, private = certificate
    wanted = [(content.made(size), span or range(size)) for size, span in SIZES_AND_RANGES]
    async with DirectoryStore.at(tmp_path / "storage") as store:
        digests = [(await store.put(content.chunks(data))).digest for data, _ in wanted]
    config = StorageConfig(port=0, data=str(tmp_path / "storage"), tls_certificate=public, tls_key=private)
    async with serve.running("storage", config, build_storage) as storage, session(authorities=public) as trusting:
        for digest, (data, span), (_, asked) in zip(digests, wanted, SIZES_AND_RANGES, strict=True):
            url = f"{storage.url}/blobs/{digest}"
            assert await received(trusting, url, asked) == data[span.start : span.stop]


@pytest.mark.slow
async def test_the_first_download_of_a_photo_over_tls_has_all_its_bytes(certificate, tmp_path):
    """The master sends the file itself if storage runs in its process."""
    public, private = certificate
    photos = [photo(0) + content.made(size) for size, _ in SIZES_AND_RANGES]
    async with AsyncExitStack() as stack:
        system = System(stack, tmp_path, together=True)
        await system.start_services()
        client = await stack.enter_async_context(Client.connect((await system.master()).url))
        tasks = [await client.upload(each) for each in photos]
    async with AsyncExitStack() as stack:
        system = System(stack, tmp_path, together=True)
        await system.start_services()
        master = await system.master(tls_certificate=public, tls_key=private)
        trusting = await stack.enter_async_context(session(authorities=public))
        for task, data, (_, asked) in zip(tasks, photos, SIZES_AND_RANGES, strict=True):
            span = asked or range(len(data))
            url = f"{master.url}/task/{task.id}/original"
            assert await received(trusting, url, asked) == data[span.start : span.stop]


async def test_a_renewed_certificate_is_used_without_a_restart(plane, certificate, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tls, "_LOOK_AGAIN", 0.05)
    public, private = certificate
    store = await plane.start("keyvaluestore", tls_certificate=public, tls_key=private)
    (tmp_path / "new").mkdir()
    renewed, its_key = await made(tmp_path / "new")

    async def shown() -> bytes:
        trusting_all = ssl.create_default_context()
        trusting_all.check_hostname, trusting_all.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection("127.0.0.1", store.port, ssl=trusting_all)
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return found

    first = await shown()
    assert first == in_file(public)
    copy(renewed, public)  # only the certificate, so the key does not match
    async with asyncio.timeout(30):
        while "stays as it was" not in caplog.text:
            assert await shown() == first
    copy(its_key, private)
    found = first
    async with asyncio.timeout(30):
        while found == first:
            found = await shown()
    assert found == in_file(renewed)


async def test_a_certificate_that_could_not_be_read_is_read_once_it_can_be(certificate, tmp_path, caplog, monkeypatch):
    """What was wrong may be the mode of a file, which changes neither its time nor its size."""
    monkeypatch.setattr(tls, "_LOOK_AGAIN", 0.01)
    public, private = map(Path, certificate)
    (tmp_path / "new").mkdir()
    renewed, its_key = map(Path, await made(tmp_path / "new"))
    now = tls.Certificate(str(public), str(private))

    def write(certificate: bytes, key: bytes) -> None:
        for path, data in ((public, certificate), (private, key)):
            path.write_bytes(data)
            os.utime(path, ns=(1, 1))

    write(renewed.read_bytes(), b"x" * its_key.stat().st_size)
    async with asyncio.timeout(30), now.watching():
        await until(lambda: "stays as it was" in caplog.text)
        write(renewed.read_bytes(), its_key.read_bytes())
        await until(lambda: presented(now.context) == in_file(str(renewed)))


async def test_files_that_cannot_be_a_certificate_and_its_key_are_told_apart(certificate, tmp_path):
    public, private = certificate
    (tmp_path / "other").mkdir()
    (tmp_path / "empty").touch()
    other, _ = await made(tmp_path / "other")
    chain, encrypted = tmp_path / "chain.pem", tmp_path / "encrypted.pem"
    authority, leaf = map(Path, (other, public))
    chain.write_bytes(authority.read_bytes() + leaf.read_bytes())
    await openssl("pkey", "-in", private, "-aes256", "-passout", "pass:secret", "-out", str(encrypted))
    for files, sentence in {
        (public, encrypted): f"--tls-key: {encrypted} is encrypted",  # and nobody is asked for a passphrase
        (other, private): f"--tls-key: {private} is not the key of the certificate",
        (chain, private): f"{chain} must begin with the one that belongs to it",
        (private, public): f"--tls-certificate: {private} contains no certificate in PEM",
        (public, tmp_path / "empty"): f"--tls-key: {tmp_path}/empty contains no private key in PEM",
        (tmp_path / "missing", private): f"--tls-certificate: {tmp_path}/missing cannot be read: No such file",
    }.items():
        with pytest.raises(PolicyError) as refused:
            tls.Certificate(*map(str, files))
        assert sentence in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("host", ["localhost", None])
@pytest.mark.parametrize(("old", "new"), [(ECDSA, RSA), (RSA, ECDSA)], ids=["rsa", "ecdsa"])
async def test_a_renewed_certificate_may_have_a_key_of_another_type(tmp_path, monkeypatch, old, new, host):
    monkeypatch.setattr(tls, "_LOOK_AGAIN", 0.01)
    (tmp_path / "new").mkdir()
    public, private = await made(tmp_path, type=old)
    renewed, its_key = await made(tmp_path / "new", type=new)
    now = tls.Certificate(public, private)
    assert presented(now.context, host) == in_file(public)
    copy(its_key, private)
    copy(renewed, public)
    async with asyncio.timeout(30), now.watching():
        await until(lambda: presented(now.context, host) == in_file(renewed))


def presented(context: ssl.SSLContext, host: str | None = None) -> bytes | None:
    """Return the certificate that a server with this context shows to a client that asks for a host, or for none."""
    trusting_all = ssl.create_default_context()
    trusting_all.check_hostname, trusting_all.verify_mode = False, ssl.CERT_NONE
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, server = (
        trusting_all.wrap_bio(back, there, server_hostname=host),
        context.wrap_bio(there, back, server_side=True),
    )
    for end in (client, server, client):
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return client.getpeercert(binary_form=True)


def in_file(path: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(Path(path).read_text())


def copy(source: str, target: str) -> None:
    Path(target).write_bytes(Path(source).read_bytes())


async def ended(reader) -> bytes:
    """Return the bytes that arrive until the other side closes or resets the connection."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def test_a_handshake_that_stalls_costs_its_connection(plane, certificate):
    public, private = certificate
    store = await plane.start("keyvaluestore", tls_certificate=public, tls_key=private, header_timeout=0.5)
    silent, quiet = await asyncio.open_connection("127.0.0.1", store.port)
    half, begun = await asyncio.open_connection("127.0.0.1", store.port)
    begun.write(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a ClientHello
    async with asyncio.timeout(30):
        assert (await ended(silent), await ended(half)) == (b"", b"")
    quiet.close()
    begun.close()
    async with session(authorities=public) as trusting:
        url = f"https://localhost:{store.port}"
        assert await ServiceClient(Connection(trusting, Several(url))).health()


async def test_handshakes_are_limited_by_address(plane, certificate):
    public, private = certificate
    store = await plane.start(
        "keyvaluestore", tls_certificate=public, tls_key=private, connections=5, trusted_proxies="192.0.2.1"
    )
    async with AsyncExitStack() as stack:
        ends = []
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", store.port)
            stack.callback(writer.close)
            writer.write(b"\x16\x03\x01\x02\x00\x01")
            ends.append(asyncio.create_task(ended(reader)))
        async with session(authorities=public) as trusting:  # a completed handshake does not count
            client = ServiceClient(Connection(trusting, Several(f"https://localhost:{store.port}")))
            assert await client.health()
            # The handshakes' own deadline is later, so connections that are closed by now were over the limit.
            async with asyncio.timeout(store.config.header_timeout / 2):
                while sum(task.done() for task in ends) < 15:
                    await asyncio.wait([each for each in ends if not each.done()], return_when=asyncio.FIRST_COMPLETED)
            assert await client.health()
        for task in ends:
            task.cancel()
        await asyncio.gather(*ends, return_exceptions=True)

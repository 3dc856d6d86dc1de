"""Test TLS to PostgreSQL: the server's certificate is checked as the URL says, and every session is encrypted."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from safelight.db.postgres import PostgresStore, schema
from safelight.db.postgres.sessions.address import Address
from safelight.errors import Error
from support.servers import postgres
from support.tasks import new_task


def authority(directory: Path) -> Path:
    """Make a certificate authority; return its certificate, beside which its key is."""
    certificate = directory / "authority.pem"
    _openssl("-x509", "-subj", "/CN=authority", "-keyout", directory / "authority.key", "-out", certificate)
    return certificate


def _openssl(*argv: object) -> None:
    command = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run([*command, *map(str, argv)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """Run a server that only takes encrypted sessions; return its URL and the authority of its certificate."""
    signer = authority(tmp_path_factory.mktemp("authority"))
    with postgres.server(made=False) as server:
        server.make()
        names = ("-subj", "/CN=database", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        signed = ("-CA", signer, "-CAkey", signer.with_suffix(".key"))
        _openssl("-x509", *names, *signed, "-keyout", server.data / "server.key", "-out", server.data / "server.crt")
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            for name in ("server.key", "server.crt"):
                os.chown(server.data / name, user.pw_uid, user.pw_gid)
        (server.data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 trust\n")
        server.start(ssl="on")
        yield server.url(), signer


@pytest.mark.slow
async def test_every_session_is_encrypted_and_the_certificate_is_checked(encrypted):
    url, signer = encrypted
    url += f"?sslmode=verify-full&sslrootcert={signer}"
    await schema.migrate(Address(url=url))
    async with PostgresStore.open(url) as store:
        (task,) = await store.create([new_task()])
        assert (await store.get(task.id)).id == task.id
        admin = await asyncpg.connect(url)
        try:
            sessions = await admin.fetch(
                "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE backend_type = 'client backend'"
            )
        finally:
            await admin.close()
    assert len(sessions) > 2
    assert all(session["ssl"] for session in sessions)


@pytest.mark.parametrize(
    ("mode", "signed", "reason"),
    [
        ("verify-full", "by-another", "its certificate is not trusted"),
        ("disable", "by-it", "no encryption"),
        ("verify-full", "nowhere", "/none.pem cannot be read: no such file"),
    ],
)
async def test_other_certificates_and_plain_sessions_are_refused(encrypted, tmp_path, mode, signed, reason):
    url, signer = encrypted
    authorities = {"by-it": lambda: signer, "by-another": lambda: authority(tmp_path), "nowhere": lambda: "/none.pem"}
    url = url.replace("safelight@", "safelight:hunter2@") + f"?sslmode={mode}&sslrootcert={authorities[signed]()}"
    with pytest.raises(Error, match=reason) as refused:
        await schema.check(Address(url=url))
    assert "hunter2" not in refused.value.detail

"""Test db with PostgreSQL as operators set it up: poolers, limits of roles, other encodings, and wrong settings."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest

from safelight.db.postgres import PostgresStore, schema
from safelight.db.postgres.sessions.address import Address
from safelight.db.postgres.sessions.failures import is_passing
from safelight.errors import Error
from safelight.wire import TaskQuery
from support.programs.ports import free_port
from support.servers import postgres
from support.tasks import new_task


async def run(url: str, *statements: str) -> None:
    server = await asyncpg.connect(url)
    try:
        for statement in statements:
            await server.execute(statement)
    finally:
        await server.close()


@contextmanager
def pgbouncer(server: postgres.Server, mode: str, *settings: str) -> Iterator[str]:
    """Run Debian's PgBouncer in front of a server; yield a URL."""
    port = free_port()
    lines = ["[databases]", f"postgres = host={server.host} port={server.port} user=safelight", "[pgbouncer]"]
    lines += [f"listen_port={port}", "listen_addr=127.0.0.1", "unix_socket_dir=", "auth_type=any", f"pool_mode={mode}"]
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        file = Path(directory, "pgbouncer.ini")
        file.write_text("\n".join([*lines, *settings, ""]))
        if user:
            owner = pwd.getpwnam("postgres")
            for path in (directory, file):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        process = subprocess.Popen(["/usr/sbin/pgbouncer", str(file)], stderr=subprocess.PIPE, text=True, **user)
        try:
            assert process.stderr is not None
            assert any("process up" in line for line in process.stderr)
            with closing(socket.create_connection(("127.0.0.1", port))):
                yield f"postgresql://safelight@127.0.0.1:{port}/postgres"
        finally:
            process.terminate()
            process.communicate()


def refused(pattern: str):
    return pytest.raises(Error, match=pattern)


_IGNORED = ("jit", "plan_cache_mode", "enable_seqscan", "enable_hashjoin", "enable_mergejoin", "synchronous_commit")
_IGNORED += ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")
_IGNORED += ("client_connection_check_interval", "statement_timeout", "idle_in_transaction_session_timeout")
_IGNORED += ("idle_session_timeout", "default_transaction_isolation", "lock_timeout")


@pytest.mark.parametrize(
    "settings", [(), (f"ignore_startup_parameters={','.join(_IGNORED)}",)], ids=["as_is", "ignored"]
)
async def test_a_pooler_in_session_mode_works(database, postgres_server, settings):
    with pgbouncer(postgres_server, "session", *settings) as url:
        async with PostgresStore.open(url) as store:
            (task,) = await store.create([new_task()])
            assert (await store.get(task.id)).id == task.id
            admin = await asyncpg.connect(database)
            try:  # not those of the role: the pooler has passed on what db wants
                shown = await admin.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
            finally:
                await admin.close()
            assert shown
        connection = await Address(url=url, statement_timeout=7).connect()
        try:
            assert await connection.fetchval("SHOW statement_timeout") == "7s"
            assert await connection.fetchval("SHOW enable_seqscan") == "off"
        finally:
            await connection.close()


@pytest.mark.parametrize(
    "settings", [(), (f"ignore_startup_parameters={','.join(_IGNORED)}",)], ids=["as_is", "ignored"]
)
async def test_a_pooler_in_transaction_mode_is_refused(database, postgres_server, settings):
    with pgbouncer(postgres_server, "transaction", *settings) as url, refused("pool_mode=session"):
        async with PostgresStore.open(url):
            pass


@pytest.mark.parametrize("url", ["postgresql://safelight@/postgres?host={}", "postgresql://safelight@{}/postgres"])
async def test_a_server_whose_socket_is_not_there_yet_is_waited_for(tmp_path, url):
    place = quote(str(tmp_path), safe="")
    with refused(f"no server listens on a socket in {tmp_path}") as caught:
        await Address(url=url.format(place)).connect()
    assert is_passing(caught.value.__cause__)


async def test_a_parameter_that_nobody_knows_is_to_be_left_out(postgres_server):
    with refused('parameter "channel_binding". Leave it out'):
        await Address(url=postgres_server.url("postgres?sslmode=prefer&channel_binding=require")).connect()
    connection = await Address(url=postgres_server.url("postgres?search_path=photos")).connect()
    assert await connection.fetchval("SHOW search_path") == "photos"
    await connection.close()


async def test_systems_in_two_schemas_of_one_database_do_their_own_maintenance(postgres_server):
    """Locks belong to the whole database; with one lock for both, leases of the second would never expire."""
    await run(postgres_server.url(), "CREATE DATABASE shared")
    await run(postgres_server.url("shared"), "CREATE SCHEMA one", "CREATE SCHEMA two")
    url = postgres_server.url("shared?search_path=")
    async with PostgresStore.open(f"{url}one") as one, PostgresStore.open(f"{url}two") as two:
        for store in (one, two):
            await store.create([new_task()])
            await store.pass_time()
        assert (one._database.maintains, two._database.maintains) == (True, True)
        assert len((await two.find(TaskQuery())).tasks) == 1


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_a_database_that_cannot_store_every_name_is_refused(postgres_server, encoding):
    name = f"in_{encoding.lower()}"
    await run(postgres_server.url(), f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    with refused("createdb --encoding UTF8"):
        await schema.check(Address(url=postgres_server.url(name)))
    with refused("createdb --encoding UTF8"):
        await schema.migrate(Address(url=postgres_server.url(name)))


async def test_a_database_without_a_locale_is_searched_in_either_case(postgres_server):
    await run(postgres_server.url(), "CREATE DATABASE plain ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0")
    async with PostgresStore.open(postgres_server.url("plain")) as store:
        await store.create([new_task(filename="Ärger.jpg"), new_task(filename="ФОТО[1].jpg")])
        for text, name in (("ärger", "Ärger.jpg"), ("фото[1]", "ФОТО[1].jpg")):
            assert [task.filename for task in (await store.find(TaskQuery(search=text))).tasks] == [name]


async def test_a_read_only_database_is_refused(postgres_server):
    url = postgres_server.url("read_only")
    await run(postgres_server.url(), "CREATE DATABASE read_only")
    await run(postgres_server.url(), "ALTER DATABASE read_only SET default_transaction_read_only = on")
    with refused("RESET default_transaction_read_only"):
        await schema.check(Address(url=url))


async def test_a_role_that_may_not_create_tables_is_told_what_it_needs(postgres_server):
    await run(postgres_server.url(), "CREATE ROLE guest LOGIN", "CREATE DATABASE of_a_guest")
    url = postgres_server.url("of_a_guest").replace("safelight@", "guest@")
    with refused("GRANT CREATE, USAGE ON SCHEMA public"):
        await schema.check(Address(url=url))
    await run(
        postgres_server.url("of_a_guest"),
        "CREATE SCHEMA photos AUTHORIZATION guest",
        "ALTER ROLE guest SET search_path = photos",
    )
    async with PostgresStore.open(url) as store:
        (task,) = await store.create([new_task()])
        assert (await store.get(task.id)).id == task.id


async def test_limits_of_the_role_do_not_end_sessions(postgres_server):
    limits = ("idle_session_timeout", "idle_in_transaction_session_timeout", "statement_timeout")
    await run(
        postgres_server.url(),
        "CREATE ROLE hurried LOGIN",
        *(f"ALTER ROLE hurried SET {limit} = '1ms'" for limit in limits),
        "ALTER ROLE hurried SET default_transaction_isolation = serializable",
    )
    connection = await Address(url=postgres_server.url().replace("safelight@", "hurried@")).connect()
    try:
        shown = [await connection.fetchval(f"SHOW {limit}") for limit in limits]
        assert shown == ["0", "10s", "30s"]
        assert await connection.fetchval("SHOW default_transaction_isolation") == "read committed"
    finally:
        await connection.close()


async def test_used_up_connections_are_explained(postgres_server):
    await run(postgres_server.url(), "CREATE ROLE limited LOGIN CONNECTION LIMIT 0")
    with refused("max_connections.*--readers"):
        await Address(url=postgres_server.url().replace("safelight@", "limited@")).connect()


async def test_a_standby_alone_is_refused_with_what_to_do(postgres_server):
    with postgres.server(made=False) as standby:
        standby.follow(postgres_server)
        standby.start()
        with refused("Name the primary"):
            await Address(url=standby.url()).connect()


@pytest.mark.parametrize("password", ["p@ss/secret", "a#secret", "b?secret", "1/secret", "[secret", "x:y/secret"])
async def test_a_password_that_is_not_encoded_is_not_shown(password):
    with pytest.raises(Error) as refusal:
        await Address(url=f"postgresql://safelight:{password}@127.0.0.1:9/photos").connect()
    assert "%40" in refusal.value.detail
    assert "secret" not in refusal.value.detail

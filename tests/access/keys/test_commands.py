"""Test the commands `safelight login`, `keys`, `tenants`, `share` and `audit`."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess

import pytest

from access.tenants import finish_one
from support.photos import photo
from support.programs.command import COMMAND, environment, safelight

pytestmark = pytest.mark.slow


@pytest.fixture
def command(keyed, tmp_path):
    """Return a function that runs the command against the master, with a home directory of the test."""
    master = keyed.url("master").removeprefix("http://")

    async def run(*argv: object, status: int = 0, **env: str) -> str:
        env = {"XDG_CONFIG_HOME": str(tmp_path / "home"), **env}
        done = await asyncio.to_thread(safelight, *argv, "--master", master, **env)
        assert done.returncode == status, (argv, done.stdout, done.stderr)
        return done.stdout if status == 0 else done.stderr

    return run


@pytest.fixture
def operator(keyed):
    return {"SAFELIGHT_CLUSTER_KEY_FILE": str(keyed.key_file)}


async def test_a_tenant_is_set_up_and_used(keyed, command, operator, tmp_path):
    master = keyed.url("master").removeprefix("http://")
    await command("status", status=5)
    store = keyed.url("keyvaluestore").removeprefix("http://")
    refused = await asyncio.to_thread(
        safelight, "tasks", "--keyvaluestore", store, XDG_CONFIG_HOME=str(tmp_path / "no")
    )
    assert refused.returncode == 5
    assert "safelight login --master HOST:PORT" in refused.stderr
    await command("tenants", "create", "acme", "--weight", "2", "--max-bytes", "1GiB", "--max-waiting", "7", **operator)
    token = (await command("keys", "create", "boss", "--scope", "administer", "--tenant", "acme", **operator)).strip()
    assert token.startswith("sl_")
    # The key is read, checked and kept where only its owner can read it.
    env = environment(XDG_CONFIG_HOME=str(tmp_path / "home"))
    login = await asyncio.create_subprocess_exec(
        COMMAND, "login", "--master", master, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
    )
    told, _ = await login.communicate(token.encode() + b"\n")
    assert b"as boss of the tenant acme" in told
    kept = tmp_path / "home/safelight/login.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    # Commands use it from now on, also without being told where the master is.
    done = await asyncio.to_thread(safelight, "status", XDG_CONFIG_HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    file = tmp_path / "beach.png"
    file.write_bytes(photo(1))
    await command("upload", file)
    task = await finish_one(keyed, photo(2))
    await assert_links_can_be_revoked(keyed, command, task)
    assert task not in await command("tasks", "--json", **operator, SAFELIGHT_API_KEY=keyed.key)
    assert task in await command("tasks", "--json", "--tenant", "acme", SAFELIGHT_API_KEY=keyed.key)
    (seen,) = json.loads(await command("tenants", "--json"))
    assert (seen["tenant"]["weight"], seen["tenant"]["limits"]["waiting"]) == (2.0, 7)
    await command("tenants", "change", "acme", "--max-waiting", "none", SAFELIGHT_API_KEY=keyed.key)
    (seen,) = json.loads(await command("tenants", "--json"))
    assert (seen["tenant"]["limits"]["waiting"], seen["tenant"]["limits"]["bytes"]) == (None, 1 << 30)
    await assert_the_webhook_secret_is_rotated(command)
    assert '"action":"links.rotate"' in await command("audit")
    await assert_refused_where_others_read(command, kept)


async def assert_a_login_is_asked_for(keyed, tmp_path):
    store = keyed.url("keyvaluestore").removeprefix("http://")
    refused = await asyncio.to_thread(
        safelight, "tasks", "--keyvaluestore", store, XDG_CONFIG_HOME=str(tmp_path / "no")
    )
    assert refused.returncode == 5
    assert "safelight login --master HOST:PORT" in refused.stderr


async def assert_links_can_be_revoked(keyed, command, task):
    link = (await command("share", task.partition("-")[0], "--expires", "1h")).strip()
    assert await status_of(keyed, link) == 200
    await command("share", "--revoke-all")
    assert await status_of(keyed, link) == 401


async def assert_the_webhook_secret_is_rotated(command):
    secret = (await command("tenants", "webhook-secret")).strip()
    assert secret.startswith("whsec_")
    assert secret == (await command("tenants", "webhook-secret")).strip()
    assert secret != (await command("tenants", "webhook-secret", "--rotate", "--overlap", "1h")).strip()


async def assert_refused_where_others_read(command, kept):
    kept.chmod(0o644)
    assert "chmod 600" in await command("status", status=2)


async def status_of(keyed, url: str) -> int:
    import aiohttp

    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return answer.status


async def test_keys_are_listed_rotated_and_revoked(keyed, command, operator):
    token = (await command("keys", "create", "script", "--expires", "30d", **operator)).strip()
    (key,) = json.loads(await command("keys", "list", "--json", **operator))
    assert (key["name"], key["scopes"], token.split("_")[1]) == ("script", ["read", "upload"], key["id"])
    assert "expires in 30 d" in await command("keys", **operator)
    another = (await command("keys", "rotate", key["id"], "--overlap", "1h", **operator)).strip()
    for each in (token, another):
        await command("tasks", SAFELIGHT_API_KEY=each)
    await command("keys", "revoke", key["id"], **operator)
    assert "revoked" in await command("keys", "list", **operator)
    while (await asyncio.to_thread(tasks, keyed, another)).returncode == 0:
        pass
    await command("tasks", status=5, SAFELIGHT_API_KEY=another)
    for wrong in (("--expires", "soon"), ("--scope", "everything")):
        await command("keys", "create", "x", *wrong, status=2, **operator)


def tasks(keyed, key: str):
    return safelight("tasks", "--master", keyed.url("master").removeprefix("http://"), SAFELIGHT_API_KEY=key)


async def test_the_list_of_keys_says_how_long_a_key_is_valid(command, operator):
    await command("keys", "create", "short", "--expires", "1h", **operator)
    assert "expires in 60 min" in await command("keys", **operator)


async def test_a_key_that_only_uploads_is_enough_unless_the_command_waits(command, operator, tmp_path):
    token = (await command("keys", "create", "camera", "--scope", "upload", **operator)).strip()
    file = tmp_path / "beach.png"
    file.write_bytes(photo(1))
    assert "is task" in await command("upload", file, SAFELIGHT_API_KEY=token)
    for waiting in (("--wait",), ("--output", tmp_path / "results")):
        refused = await command("upload", file, *waiting, status=5, SAFELIGHT_API_KEY=token)
        assert "camera may not do this: it needs the scope read." in refused
    assert len(json.loads(await command("tasks", "--json", **operator))) == 1

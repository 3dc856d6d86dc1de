"""Test how a command finds the services: what it says about a cluster key that cannot be used."""

import pytest

from safelight.cli.access import kept_keys
from safelight.cli.connection import Where, cluster_credentials, master
from safelight.client.base import no_credentials
from safelight.errors import Code, Error


@pytest.mark.parametrize("name", ["missing", "open", "short"])
async def test_a_cluster_key_that_cannot_be_used_is_named(tmp_path, monkeypatch, name):
    monkeypatch.delenv("SAFELIGHT_API_KEY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for file, text, mode in (("open", "k" * 40, 0o644), ("short", "k", 0o600)):
        (tmp_path / file).write_text(text)
        (tmp_path / file).chmod(mode)
    where = Where(keyvaluestore="127.0.0.1:9", cluster_key_file=tmp_path / name)
    with pytest.raises(Error, match=f"The cluster key file {tmp_path}/{name} "):
        async with master(where):
            pass


def test_an_empty_variable_names_no_cluster_key(tmp_path):
    assert cluster_credentials(Where(cluster_key_file=type(tmp_path)(""))) is no_credentials


@pytest.mark.parametrize("text", ["a\nb", "a\r\nHost: b", "a\0b", "a\x7f", "a\udc80"])
async def test_what_no_header_can_have_is_refused_in_a_sentence(tmp_path, monkeypatch, text):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(Error, match="The value of Safelight-Tenant contains a line break") as caught:
        async with master(Where(master="127.0.0.1:9", tenant=text)) as client:
            await client.summary()
    assert caught.value.code is Code.INVALID_REQUEST


def test_a_home_that_is_no_directory_holds_no_keys(monkeypatch):
    """Accounts of services have such homes."""
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", "/dev/null")
    assert kept_keys.load() == kept_keys.Login()

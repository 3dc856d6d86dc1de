"""Test that an empty text, such as that of an unset variable, and a number without a unit are refused."""

import pytest

from safelight.cli.connection import DEFAULT_STORE, Where, api_credentials
from support.programs.command import safelight

EMPTY = {
    "--batch": ("delete", "--state", "finished", "--yes", "--batch", ""),
    "--search": ("cancel", "--state", "waiting", "--search", ""),
    "--reason": ("retry", "--state", "failed", "--reason="),
    "--since": ("download", "--state", "finished", "--since", ""),
    "--recipe": ("pause", "-r", ""),
    "--tenant": ("delete", "--batch", "x", "--tenant", ""),
    "--with": ("rerun", "1", "--with", ""),
    "--only": ("download", "1", "--only", ""),
    "--master": ("tenants", "list", "--master", ""),
    "--max-bytes": ("tenants", "change", "acme", "--max-bytes", ""),
    "--overlap": ("keys", "rotate", "4k2vq7w3", "--overlap", ""),
    "ID": ("keys", "revoke", ""),
    "WORKER": ("workers", "drain", ""),
    "CALL": ("webhooks", "resend", ""),
    "KEY": ("store", "delete", ""),
    "NAME": ("recipes", "delete", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_text_is_refused(name):
    done = safelight(*EMPTY[name])
    assert (done.returncode, done.stderr) == (2, f"safelight: {name} is empty. Leave it out, or give it a value.\n")


def test_texts_of_people_may_be_empty():
    for words in (("store", "set", "motto", ""), ("tenants", "change", "acme", "--name", "")):
        done = safelight(*words, SAFELIGHT_KEYVALUESTORE="127.0.0.1:1")
        assert done.returncode == 4
        assert "127.0.0.1:1" in done.stderr


def test_an_empty_variable_of_the_environment_is_as_good_as_none():
    where = {"SAFELIGHT_KEYVALUESTORE": "127.0.0.1:1", "SAFELIGHT_MASTER": "", "SAFELIGHT_TENANT": ""}
    assert "Nothing answers at 127.0.0.1:1" in safelight("status", **where).stderr
    assert Where(keyvaluestore="").keyvaluestore == DEFAULT_STORE
    assert "Safelight-Tenant" not in api_credentials(Where(tenant=""), "127.0.0.1:1")("GET", "/tasks")


@pytest.mark.parametrize("text", ["2025", "0", "90"])
def test_a_number_is_neither_a_time_nor_a_duration(text):
    where = {"SAFELIGHT_KEYVALUESTORE": "127.0.0.1:1"}
    done = safelight("delete", "--until", text, "--yes", **where)
    assert done.returncode == 2
    assert f"Write a time such as 2026-11-26T08:30 or how long ago, such as 2h or 7d, not '{text}'." in done.stderr

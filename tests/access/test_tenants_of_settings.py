"""Test that the master tells at its start of tenants that its settings name and that do not exist."""

from __future__ import annotations

from access.conftest import ELSEWHERE
from support.programs.until import until

RULES = '[[users]]\nclaim = "groups"\nvalue = "photographers"\ntenant = "acme"\nscopes = ["read"]\n'


async def test_tenants_that_do_not_exist_are_told_at_the_start(plane, tmp_path, caplog):
    (tmp_path / "users.toml").write_text(RULES)
    settings = {
        "public_url": "https://photos.example.org", "oidc_issuer": "https://accounts.example.org",
        "oidc_client_id": "photos", "oidc_users": str(tmp_path / "users.toml"),
        "user_header": "X-Forwarded-User", "user_tenant": "umbrella",
    }  # fmt: skip
    await plane.start_all(trusted_proxies=ELSEWHERE, master=settings)

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if "does not exist" in record.getMessage()]

    await until(lambda: len(told()) == 2)
    ending = ", which does not exist, so its users cannot sign in. Create it."
    assert sorted(told()) == [
        f"--oidc-users names the tenant acme{ending}",
        f"--user-tenant names the tenant umbrella{ending}",
    ]

"""Rules for which users of an identity provider may sign in, from a TOML file that is read at the start."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from safelight.untrusted.validation import explained
from safelight.wire import DEFAULT_TENANT, TenantId
from safelight.wire.accounts import Scopes

_Text = Annotated[str, Meta(min_length=1, max_length=1000)]


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Users whose claim is, or contains, `value` belong to `tenant` and have `scopes`."""

    claim: _Text
    value: _Text
    tenant: TenantId = DEFAULT_TENANT
    scopes: Scopes

    def matches(self, claims: Mapping[str, Any]) -> bool:
        """Return whether a user has the claim. An unverified e-mail address never matches."""
        if self.claim == "email" and not _is_verified(claims):
            return False
        held = claims.get(self.claim)
        return self.value in held if isinstance(held, list) else held == self.value


class Users(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rules; the first that matches applies. A user whom no rule matches cannot sign in."""

    users: Annotated[list[Rule], Meta(min_length=1)]

    @classmethod
    def load(cls, path: Path) -> Users:
        """Read the file. Raises ValueError with a sentence."""
        try:
            return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8-sig")), cls)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        except msgspec.ValidationError as error:
            reason, position = explained(error, cls)
            raise ValueError(f"{path}, {position.removeprefix('$.')}: {reason}") from None
        except ValueError as error:
            raise ValueError(f"{path} is not valid TOML: {error}") from None

    def rule(self, claims: Mapping[str, Any]) -> Rule | None:
        """Return the rule for a user, or None if the user may not sign in."""
        return next((rule for rule in self.users if rule.matches(claims)), None)


def name_of(claims: Mapping[str, Any]) -> str:
    """Return the name of a user: a verified address, else the subject. People can choose other names themselves."""
    email = claims.get("email")
    return email if isinstance(email, str) and email and _is_verified(claims) else str(claims["sub"])


def _is_verified(claims: Mapping[str, Any]) -> bool:
    """Return whether the provider has verified the address; some, such as Apple, say so by a string."""
    verified = claims.get("email_verified")
    return verified is True or verified == "true"

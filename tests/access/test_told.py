"""Test who learns the addresses of what does not answer: those who operate the system, and no stranger."""

import pytest

from safelight import http
from safelight.access.caller import LOCAL, NOBODY, Access, Caller
from safelight.errors import Code, Error

AWAY = Error(Code.UNAVAILABLE, "The bucket s3://photos at http://10.0.0.7:8333 failed: refused.", retry_after=5)


@pytest.mark.parametrize(
    ("caller", "sees"),
    [
        (Caller(name="this machine", scopes=LOCAL, via="loopback"), True),
        (Caller(name="an operator", scopes=Access.OPERATE, via="key"), True),
        (Caller(name="an administrator", scopes=Access.ADMINISTER, via="session"), True),
        (Caller(name="a user", scopes=Access.UPLOAD | Access.READ, via="key"), False),
        (Caller(name="a tenant's administrator", tenant="first", scopes=Access.ADMINISTER, via="key"), False),
        (Caller(name="a visitor", scopes=Access.READ, via="link"), False),
        (NOBODY, False),
    ],
)
def test_only_who_operates_the_system_sees_addresses(caller: Caller, *, sees: bool) -> None:
    told = http.as_told(AWAY, caller)
    assert ("10.0.0.7" in told.detail) is sees
    assert (told.code, told.extra) == (AWAY.code, AWAY.extra)


def test_what_a_stranger_can_use_is_not_hidden() -> None:
    full = Error(Code.TOO_MANY_REQUESTS, "The queue is full. Try again in a minute.", retry_after=60)
    assert http.as_told(full, NOBODY) is full

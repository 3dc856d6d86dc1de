"""Read the redirects of services and of what is in front of them, such as a proxy or a sign-in page."""

from __future__ import annotations

from yarl import URL

from safelight.errors import Code, Error
from safelight.untrusted.text import printable

_SHOWN = 200
"""Characters of a redirect's target that an error quotes at most."""


def target(url: str) -> URL:
    """Parse the untrusted target of a download. Raises UNAVAILABLE if it is not an address."""
    try:
        address = URL(url, encoded=True)
        known = address.scheme in ("http", "https") and bool(address.host)
    except ValueError:
        known = False
    if not known:
        raise Error(Code.UNAVAILABLE, "The service redirected a download to an invalid address. Try again.")
    return address


def misdirected(base: str, path: str, location: str) -> Error:
    """Return the error for a request that was answered with a redirect, which no service does by itself."""
    address = location.partition("?")[0]
    if address.endswith(path) and address.startswith(("http://", "https://")):
        advice = f"Give the address {printable(address.removesuffix(path))[:_SHOWN]} instead."
    else:
        advice = "Give an address that leads to the service itself, and not to a sign-in page."
    return Error(Code.MISDIRECTED, f"{base} redirects to {printable(location)[:_SHOWN] or 'nowhere'}. {advice}")

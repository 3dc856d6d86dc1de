"""``drumhead key …``: the key that signs pushed packages and images."""

from __future__ import annotations

from drumhead.home import find_home
from drumhead.package.signing import create_key, public_key


def create_command() -> None:
    """Create the key that signs what you push, and print the public key for people who pull."""
    print(create_key(find_home()))


def show_command() -> None:
    """Print the public key, for `drumhead remote add --key`."""
    print(public_key(find_home()))

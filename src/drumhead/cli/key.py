"""``drumhead key …``: the key that signs what is pushed."""

from __future__ import annotations

from drumhead.home import find_home
from drumhead.package.signing import create_key, public_key


def create_command() -> None:
    """Make the key that signs what is pushed, and print the public key for those who pull."""
    print(create_key(find_home()))


def show_command() -> None:
    """Print the public key, for `drumhead remote add --key`."""
    print(public_key(find_home()))

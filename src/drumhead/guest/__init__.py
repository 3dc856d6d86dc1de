"""Guests boot images. Each guest has a package (``guest.linux``) and implements the contract (``guest.contract``)."""

from __future__ import annotations

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest.contract import Capability, Guest

__all__ = ["Guest", "find_guest", "require"]


def find_guest(name: str) -> Guest:
    """Return the guest that a manifest or an image names. Raises UNSUPPORTED."""
    match name:
        case "linux":
            from drumhead.guest.linux import LinuxGuest  # noqa: PLC0415 - a guest is imported when it is used

            return LinuxGuest()
        case "osv":
            from drumhead.guest.osv import OsvGuest  # noqa: PLC0415

            return OsvGuest()
        case _:
            raise DrumheadError(ErrorCode.UNSUPPORTED, f"this drumhead has no guest {name}; it has: linux, osv")


def require(guest: Guest, capability: Capability) -> None:
    """Raise UNSUPPORTED with the reason if `guest` does not have a capability."""
    reason = guest.unsupported.get(capability)
    if reason:
        raise DrumheadError(ErrorCode.UNSUPPORTED, reason)

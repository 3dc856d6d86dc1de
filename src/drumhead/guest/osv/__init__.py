"""The OSv guest: one address space, one process, threads only. The user provides its kernel."""

from drumhead.guest.osv.guest import OsvGuest

__all__ = ["OsvGuest"]

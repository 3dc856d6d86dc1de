"""OSv: one address space, one process, threads only. Its kernel is the user's to bring."""

from drumhead.guest.osv.guest import OsvGuest

__all__ = ["OsvGuest"]

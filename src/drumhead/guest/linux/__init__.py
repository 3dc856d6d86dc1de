"""The Linux guest: Debian's kernel, a small init of our own (``init/``), layers under overlayfs."""

from drumhead.guest.linux.guest import LinuxGuest

__all__ = ["LinuxGuest"]

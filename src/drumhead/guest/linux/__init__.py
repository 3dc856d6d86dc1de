"""The Linux guest: Debian's kernel, drumhead's own small init (``init/``), layers under overlayfs."""

from drumhead.guest.linux.guest import LinuxGuest

__all__ = ["LinuxGuest"]

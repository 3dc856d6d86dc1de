"""The Linux guest: Debian's kernel, a small init program (``init/``), and layers under overlayfs."""

from drumhead.guest.linux.guest import LinuxGuest

__all__ = ["LinuxGuest"]

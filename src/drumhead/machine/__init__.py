"""Machines: QEMU processes started from images, their networks, volumes and sessions."""

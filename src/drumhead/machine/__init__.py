"""Machines: QEMU processes started from images, the networks between them, and what can be asked of them."""

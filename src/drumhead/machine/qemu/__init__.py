"""QEMU: its command line, its process, its accelerators, and the sockets of QEMU and the guest."""

"""QEMU: its command line, its process, its accelerators, and the sockets that it and the guest listen on."""

"""Images (a kernel, an initramfs and read-only layers): compose, store and export them."""

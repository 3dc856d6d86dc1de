"""Images: a kernel, an initramfs and read-only layers; how they are composed, kept and exported."""

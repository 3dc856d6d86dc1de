"""Read-only file systems that a tree is written as: squashfs and erofs for Linux, ROFS for OSv."""

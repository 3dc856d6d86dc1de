"""Write trees as read-only file systems: squashfs and erofs for Linux, ROFS for OSv."""

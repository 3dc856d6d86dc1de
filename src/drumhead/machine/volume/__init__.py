"""Volumes: disks that outlive their machine, and the ext4 file systems on them."""

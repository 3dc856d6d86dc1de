"""Images for other hosts: bootable disks and OCI artifacts."""

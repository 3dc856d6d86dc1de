"""Export images for other hosts: bootable disks, OCI artifacts and container images."""

"""Where packages are pulled from and pushed to: plain HTTP directories and OCI registries."""

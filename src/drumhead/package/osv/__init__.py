"""OSv kernels that the user provides: identify files, adapt modules, and make the package."""

"""Packages: runtimes, tools and kernels that a project requires; how they are built, kept, found and moved."""

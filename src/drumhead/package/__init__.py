"""Packages: the runtimes, tools and kernels that projects require, with their recipes, store and remotes."""

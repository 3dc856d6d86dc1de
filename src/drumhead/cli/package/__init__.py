"""Commands for packages."""

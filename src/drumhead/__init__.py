"""drumhead composes an application into a small virtual machine image and runs it. See docs/internals/drumhead.md."""

__version__ = "0.1.0"

"""drumhead composes an application into a small virtual machine image and runs it. See docs/drumhead/design.md."""

"""Back up a system with embedded backends while it runs, check a backup, and restore one."""

"""Commands that show the running services and change how they work."""

"""Commands that show and change tasks."""

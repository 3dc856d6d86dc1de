"""From pixels to a finished file."""

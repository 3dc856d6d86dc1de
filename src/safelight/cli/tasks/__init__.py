"""Commands that look at tasks and change them."""

"""Start programs, find ports for them, wait for what they do, and end them."""

"""Sessions with the server: open them, classify their failures, and let calls wait for them."""

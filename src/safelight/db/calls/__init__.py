"""What each call of the store does within a transaction. It is the same for every backend."""

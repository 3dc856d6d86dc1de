"""The implementation of each call of the store within a transaction, for every backend."""

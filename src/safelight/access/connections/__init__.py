"""Connections of clients: where they come in, how many there may be, and which must give way."""

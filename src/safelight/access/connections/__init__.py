"""Accept connections of clients, limit their number, and close some at the limit."""

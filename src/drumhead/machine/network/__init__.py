"""Networks of machines: the private network between them, and networks of the host."""

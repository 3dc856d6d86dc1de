"""What can be done with machines."""

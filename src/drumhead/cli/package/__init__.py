"""What can be done with packages."""

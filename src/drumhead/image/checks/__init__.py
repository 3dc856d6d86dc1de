"""What is checked before an image is stored: whether its config sets can run in its guest."""

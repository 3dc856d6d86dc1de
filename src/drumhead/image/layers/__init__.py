"""Plan, build and store the layers of an image."""

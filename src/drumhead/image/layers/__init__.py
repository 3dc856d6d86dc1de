"""The layers of an image: planned, built and stored."""

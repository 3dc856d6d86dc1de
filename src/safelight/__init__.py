"""A self-hosted system for photos: people upload them, workers process them, results come back."""

__version__ = "0.1.0"

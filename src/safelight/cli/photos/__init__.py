"""Photos on their way up, and results on their way down."""

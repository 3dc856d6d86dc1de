"""Commands that upload photos and download results."""

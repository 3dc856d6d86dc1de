"""Photos come in: by form, or piece by piece with tus."""

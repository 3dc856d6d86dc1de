"""Uploads: by form, or resumable with tus."""

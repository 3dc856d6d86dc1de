"""Recipes by name: built in, from a file, or saved."""

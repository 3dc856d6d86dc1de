"""Readers: one module for each format, or for the library that reads several."""

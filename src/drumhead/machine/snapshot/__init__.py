"""Machines that are saved before their command starts, and resumed many times."""

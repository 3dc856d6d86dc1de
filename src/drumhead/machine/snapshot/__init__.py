"""Snapshots: machines that are saved once, before their command starts, and resumed any number of times."""

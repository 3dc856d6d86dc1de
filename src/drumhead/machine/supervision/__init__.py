"""Supervisors: processes that start a machine again when it has ended."""

"""Calls that create, find, lease, change and end tasks."""

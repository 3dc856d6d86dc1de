"""The db service: tasks, leases, events, saved recipes and webhook calls."""

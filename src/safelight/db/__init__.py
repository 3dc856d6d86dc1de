"""db: tasks, leases, events, saved recipes and webhook deliveries."""

"""The worker takes leases from the master, processes photos and stores the results."""

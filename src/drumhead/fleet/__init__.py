"""Fleets: the machines of one application, started in dependency order and kept running as the fleet file says."""

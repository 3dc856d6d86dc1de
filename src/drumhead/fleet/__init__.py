"""Fleets: the machines of one application, started in order of dependency and kept running as the fleet file says."""

"""Fleets: the machines of one application, started in the order of their health and kept as the fleet file says."""

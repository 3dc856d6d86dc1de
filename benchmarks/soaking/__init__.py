"""What the soak disturbs: the system in processes, or in machines."""

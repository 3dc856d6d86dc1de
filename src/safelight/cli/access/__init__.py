"""Keys, tenants, signing in and sharing."""

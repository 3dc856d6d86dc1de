"""SQL of the services: scripts in files, and SQLite databases that belong to one service each."""

"""SQL of the services: scripts in files, and SQLite files of one service each."""

"""Node.js projects: choose the version of Node.js, install the packages of a lock, check native modules."""

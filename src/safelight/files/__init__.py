"""Files of this machine: open them in threads, replace them, and begin to write them to disk before their flush."""

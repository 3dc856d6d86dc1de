"""Files of this machine: open them in threads, and begin to write them to disk before their flush."""

"""Live data: the feed of events, and statistics of the last hour."""

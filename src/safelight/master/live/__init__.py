"""What happens now: the feed of events and the last hour's numbers."""

"""Real browsers and what they show."""

"""Whether and where a service answers: its instances, which of them live, when to try again, and why none answered."""
